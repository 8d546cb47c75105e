"""The script that measures hints and verdicts of a live pair, on a pair without weights."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.models import exam

HINTS = ("beginning", "equations", "draft", "short")
WORDINGS = ("ready-made", "first wrong step", "doubt")
SCRIPT = Path(__file__).parents[3] / "examples" / "real_models" / "ways.py"


@pytest.fixture
def script(monkeypatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return runpy.run_path(str(SCRIPT))


def _way(script, name: str, rights: str, cost: float) -> Any:
    answers = {
        "row": [str(number) for number in range(len(rights))],
        "right": [mark == "1" for mark in rights],
        "cost": cost,
        "teacher_completion_tokens": 7,
    }
    return script["Way"].of(name, "", pandas.DataFrame(answers))


def test_all_ways_are_measured(script, tmp_path, monkeypatch) -> None:
    def asked(messages: list[Any]) -> int:  # the question is not the last thing that a judge reads
        found = re.search(r"more than (\d+)", " ".join(str(m.text) for m in messages))
        assert found
        return int(found[1])

    monkeypatch.setattr(exam, "number_of", asked)
    ways = script["measure"]("gsm8k", exam.task(4), exam.pair(), tmp_path)
    table = script["ways_table"]("gsm8k", ways)
    assert table.title == "gsm8k, 4 rows"
    assert [line[:2] for line in table.rows] == [
        ["student alone", ""],
        ["teacher alone", ""],
        *([f"teacher alone, {way}", ""] for way in HINTS[1:]),
        *([way, "60"] for way in HINTS),
        *([f"verified, {wording}", ""] for wording in WORDINGS),
    ]
    found = {line[0]: line[2:] for line in table.rows}
    assert found["student alone"] == ["50.0% (15-85)", "0", "0%", "+0.0"]
    assert found["teacher alone"] == ["100.0% (51-100)", "16", "100%", "+0.0"]
    # This teacher always writes its 16 words. So it costs as much in any way, and no verdict of it
    # can be read: the student's draft stays.
    assert found["beginning"] == ["100.0% (51-100)", "16", "100%", "+0.0"]
    assert found["verified, doubt"] == ["50.0% (15-85)", "16", "100%", "-50.0"]
    assert script["_summary"](table, script["choice_table"]("gsm8k", ways)) == (
        "- gsm8k, 4 rows: 0 of 7 ways beat a random router. The best hint on seen rows has 100.0% "
        "right on unseen ones, at 100% of the bill: +0.0 points over the router. The best verdict "
        "has 50.0% at 100%: -50.0 points. The teacher alone with another prompt has 100.0% at "
        "100%: +0.0 points."
    )


def test_the_router_draws_lots_at_the_price_of_a_way(script) -> None:
    ways = [
        _way(script, "student alone", "1100000000", 0.0),
        _way(script, "teacher alone", "1111110000", 2.0),
        _way(script, "draft", "1111100000", 0.5),
        _way(script, "verified, doubt", "1100000000", 3.0),
    ]
    shown = {line[0]: line[-2:] for line in script["ways_table"]("csqa", ways).rows}
    assert shown["draft"] == ["25%", "+20.0"]  # a quarter of the lots fall on the teacher: 30%
    assert shown["verified, doubt"] == ["150%", "-40.0"]  # the router is the teacher at most


def test_a_way_is_tested_on_rows_that_did_not_choose_it(script) -> None:
    first, second = "1111100000", "0000011111"
    ways = [
        _way(script, "student alone", "0" * 10, 0.0),
        _way(script, "teacher alone", "1" * 10, 1.0),
        _way(script, "teacher alone, draft", "1" * 10, 0.5),
        _way(script, "draft", first, 0.5),
        _way(script, "short", second, 0.5),
        _way(script, "verified, doubt", "1" * 10, 0.25),
    ]
    hint, verdict, alone = script["choice_table"]("csqa", ways).rows
    # On these rows a half that favours one hint leaves the other half to the other hint.
    assert float(hint[-1]) < 0
    assert verdict == ["a verdict", "verified, doubt (20 of 20)", "100.0%", "25%", "+75.0"]
    assert alone[2:] == ["100.0%", "50%", "+50.0"]


def test_rows_that_a_way_lacks_are_left_out_everywhere(script) -> None:
    ways = [_way(script, "student alone", "0101", 0.0), _way(script, "teacher alone", "11", 1.0)]
    lines = script["ways_table"]("csqa", ways).rows
    assert [line[2].split()[0] for line in lines] == ["50.0%", "100.0%"]
