"""Run folders that were made when guidance was cut before the blank, continued today.

They were recorded with the embedded pair: `earlier_sweep` with lengths 3, 6 and 12, and
`earlier_compare` with 12, of three word problems each.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.models.fakes import MODELS

from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent, Price
from langchain_gkt.evaluation import compare, load_task, sweep
from langchain_gkt.evaluation.running.run_store import LINES

HERE = Path(__file__).parent
ASKED: list[str] = []
LENGTHS = [3, 6, 12]
AGAIN = "the student makes them again"


class Teacher(HuggingFaceStudent):
    """A local teacher that notes what it is asked; runs name it by its class."""

    async def _astream(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        ASKED.append(str(messages[-1].text))
        async for chunk in super()._astream(messages, *args, **kwargs):
            yield chunk

    async def _agenerate(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        ASKED.append(str(messages[-1].text))
        return await super()._agenerate(messages, *args, **kwargs)


@pytest.fixture(scope="module")
def chain():
    teacher = Teacher(model=MODELS / "teacher")
    student = HuggingFaceStudent(model=MODELS / "student")
    yield GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=12, temperature=0.0
    )
    teacher.close()
    student.close()


@pytest.fixture(scope="module")
def today(chain) -> dict[str, Any]:
    """The answers of runs that were made today, from the first row to the last."""
    more = [3, 4, 6, 12]
    return {kind: written(go_on(kind, chain, 4, None, more)) for kind in ("sweep", "compare")}


@pytest.fixture(autouse=True)
def _nothing_asked_yet(today) -> None:
    ASKED.clear()


def earlier(kind: str, target: Path, lines: int | None = None) -> Path:
    folder = shutil.copytree(HERE / f"earlier_{kind}", target / kind)
    kept = (folder / LINES).read_bytes().splitlines(keepends=True)[:lines]
    (folder / LINES).write_bytes(b"".join(kept))
    return folder


def go_on(kind: str, chain: Any, rows: int, out: Path | None, lengths: Any = LENGTHS) -> Any:
    options: dict[str, Any] = {"out": out, "teacher_price": Price(input_mtok=1, output_mtok=2)}
    task = load_task("word_problems", rows=rows, seed=1)
    if kind == "compare":
        return compare(chain, task, **options)
    return sweep(chain, task, lengths=lengths, **options)


def written(found: Any) -> dict[Any, Any]:
    return {(a.row, a.mode, a.length): (a.guidance, a.text) for a in found.answers}


def replies(folder: Path) -> Counter[Any]:
    lines = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
    return Counter((one["row"], one["mode"]) for one in lines if one["type"] == "reply")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sweep", "compare"])
def test_a_finished_run_stays_as_it_is(kind, chain, tmp_path) -> None:
    folder = earlier(kind, tmp_path)
    before = (folder / LINES).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = go_on(kind, chain, 3, folder)
    assert ASKED == []
    after = (folder / LINES).read_bytes()
    assert after.startswith(before)
    added = [json.loads(line)["answer"]["mode"] for line in after[len(before) :].splitlines()]
    # A sweep learns how sure the student was, which the older release did not record.
    assert added == (["student"] * 3 if kind == "sweep" else [])
    assert any(a.guidance == "Plan: 62 plus 6, minus 15." for a in found.answers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "lines", "rows", "lengths", "asked"),
    [
        ("sweep", 13, 3, LENGTHS, 0),  # interrupted after one guided answer
        ("sweep", 5, 3, LENGTHS, 0),  # interrupted behind a reply, before its answer
        ("sweep", 4, 3, LENGTHS, 1),  # interrupted before the last reply
        ("sweep", None, 3, [3, 4, 6, 12], 0),  # another length
        ("sweep", None, 4, LENGTHS, 1),  # another row
        ("compare", 13, 3, None, 0),
        ("compare", None, 4, None, 2),
    ],
)
def test_a_run_that_goes_on_is_of_one_kind(
    kind, lines, rows, lengths, asked, chain, today, tmp_path
) -> None:
    folder = earlier(kind, tmp_path, lines)
    known = replies(folder)
    has_guided = lines is None or lines > 12
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = go_on(kind, chain, rows, folder, lengths)
    assert [w for w in said if AGAIN in str(w.message)] if has_guided else not said
    assert len(ASKED) == asked
    assert set(replies(folder).values()) == {1}
    assert set(known) <= set(replies(folder))
    made = written(found)
    assert len(made) == rows * (3 if kind == "compare" else 2 + len(lengths))
    assert made == {key: today[kind][key] for key in made}


@pytest.mark.slow
def test_interrupted_while_answers_are_made_again(chain, today, tmp_path) -> None:
    lengths = [3, 4, 6, 12]
    folder = earlier("sweep", tmp_path)
    known = len((folder / LINES).read_bytes().splitlines())
    with pytest.warns(UserWarning, match=AGAIN):
        whole = written(go_on("sweep", chain, 3, folder, lengths))
    assert whole == {key: today["sweep"][key] for key in whole}
    lines = (folder / LINES).read_bytes().splitlines(keepends=True)
    made = [at for at, line in enumerate(lines) if b'"guided"' in line and at >= known]
    assert len(made) == 12
    for end in (made[0], made[8]):
        (folder / LINES).write_bytes(b"".join(lines[: end + 1]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert written(go_on("sweep", chain, 3, folder, lengths)) == whole
    assert ASKED == []
