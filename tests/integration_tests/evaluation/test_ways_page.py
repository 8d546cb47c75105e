"""The script that measures hints and verdicts of a live pair, on a pair without weights."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from support.models import exam

HINTS = ("beginning", "equations", "draft", "short")
SCRIPT = Path(__file__).parents[3] / "examples" / "real_models" / "ways.py"


@pytest.fixture
def script(monkeypatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return runpy.run_path(str(SCRIPT))


def test_all_ways_are_measured(script, tmp_path, monkeypatch) -> None:
    def asked(messages: list[Any]) -> int:  # the question is not the last thing that a judge reads
        found = re.search(r"more than (\d+)", " ".join(str(m.text) for m in messages))
        assert found
        return int(found[1])

    monkeypatch.setattr(exam, "number_of", asked)
    worded = script["wordings"]("gsm8k", exam.task(4), exam.pair(), tmp_path)
    assert [line[:3] for line in worded.rows] == [
        [wording, "50.0%", "16"] for wording in ("ready-made", "first wrong step", "doubt")
    ]  # here an instruction changes nothing but the length of the prompt
    table = script["measure"]("gsm8k", "doubt", exam.task(4), exam.pair(), tmp_path)
    assert [line[:2] for line in table.rows] == [
        ["student alone", ""],
        ["teacher alone", ""],
        *([way, "60"] for way in HINTS),
        ["verified", ""],
    ]
    found = {line[0]: line[2:] for line in table.rows}
    assert found["student alone"] == ["50.0%", "0", "0%", "+0.0"]
    assert found["teacher alone"] == ["100.0%", "16", "100%", "+0.0"]
    # This teacher always writes its 16 words. So it costs as much in any way, and no verdict of it
    # can be read: the student's draft stays.
    assert found["beginning"] == ["100.0%", "16", "100%", "+0.0"]
    assert found["verified"] == ["50.0%", "16", "100%", "-50.0"]
    assert script["_summary"](table) == (
        "- gsm8k, 4 rows: 0 of 5 ways beat a random router. The best is *beginning*, at most 60 "
        "tokens: 100.0% right at 100% of the bill, +0.0 points over the router.\n- gsm8k: the "
        "verdict (*verified*) took 100% of the bill, and 50.0% were right (student alone 50.0%)."
    )


def test_the_router_draws_lots_at_the_price_of_a_way(script) -> None:
    lines = [
        ["student alone", "", 0.4, 0.0, 0.0],
        ["teacher alone", "", 0.8, 2.0, 50.0],
        ["draft", "20", 0.7, 0.5, 12.0],
        ["verified", "", 0.5, 3.0, 2.0],
    ]
    shown = {line[0]: line[-2:] for line in script["_table"]("csqa", 10, lines).rows}
    assert shown["draft"] == ["25%", "+20.0"]  # a quarter of the lots fall on the teacher: 50%
    assert shown["verified"] == ["150%", "-30.0"]  # the router cannot do better than the teacher
