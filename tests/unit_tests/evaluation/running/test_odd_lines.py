"""Lines of a run folder that are JSON but nothing of a run are named, also by a rerun."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models.exam import pair, task

from langchain_gkt.evaluation import compare, load_run
from langchain_gkt.evaluation.running.run_store import LINES, check_line

PART = {"row": "x", "mode": "guided", "text": "8"}
ODD = {
    "5": "line",
    '{"type": ["a"]}': r"line\.type must be a text",
    '{"type": "answer"}': r"answer\.answer is missing",
    '{"type": "reply", "mode": "guided", "reply": {}}': r"reply\.row is missing",
    '{"type": "failure", "row": [], "mode": "m", "length": 1, "error": ""}': r"failure\.row",
    json.dumps({"type": "answer", "answer": {**PART, "verdicts": {}}}): "main metric",
    json.dumps(
        {
            "type": "answer",
            "answer": {**PART, "verdicts": {"answer": True}, "teacher": {"prompt_cost": "much"}},
        }
    ): "must be a decimal number",
}


def test_odd_lines_are_named_by_reruns_too(tmp_path) -> None:
    compare(pair(), task(2), out=tmp_path)
    file = tmp_path / LINES
    whole = file.read_text()
    for line, said in ODD.items():
        file.write_text(whole + line + "\n")
        for read in (load_run, lambda out: compare(pair(), task(2), out=out)):
            with pytest.raises(ValueError, match=rf"line \d+ of .* is damaged: .*{said}"):
                read(tmp_path)
    file.write_text(whole + '{"type": "of a later release"}\n')
    assert str(load_run(tmp_path)) == str(compare(pair(), task(2), out=tmp_path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["row", "mode", "text", "reply", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.sampled_from(["answer", "reply", "failure", "check", "cut", "x"]), JSON, JSON)
def test_any_line_is_taken_or_refused_with_a_value_error(kind, record, row) -> None:
    for line in (record, {"type": kind, kind: record, "row": row, "mode": row, "length": row}):
        try:
            check_line(line)
        except ValueError as error:
            assert str(error)
