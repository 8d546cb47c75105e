"""The page of agents is written from figures, and says nothing that they do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import agents_page, bfcl_judge
from benchmarks.bfcl_judge import figures


def row(agree: int, voted: bool, alone: bool, price: float = 1.0, sure: float = 0.5) -> Any:
    return {
        "agree": agree,
        "voted": voted,
        "alone": alone,
        "valid": True,
        "price": price,
        "confidence": sure,
    }


ROWS = [
    row(5, True, True, sure=0.9),
    row(5, True, False, sure=0.8),
    row(3, False, False, price=7.0, sure=0.7),
    row(1, False, True, sure=0.6),
]
PERFECT = [{**one, "alone": True} for one in ROWS]


def test_figures_of_a_threshold_are_those_counted_by_hand() -> None:
    found = figures(ROWS, PERFECT)
    assert (found["rows"], found["alone"], found["voted"]) == (4, 0.5, 0.5)
    least, most = found["points"][0], found["points"][3]
    assert (least["left"], least["right"], least["wrong"]) == (0.0, 0.5, 2)
    # Rows 2 and 3 are the teacher's, with 8 of 10 parts of its bill.
    assert (most["left"], most["bill"], most["right"], most["wrong"]) == (0.5, 0.8, 1.0, 0)
    assert most["random"] == 0.75  # half of its lots fall on a student that is right in half
    assert most["confidence"] == 0.75  # asks for rows 2 and 3, and row 1 stays wrong
    assert most["oracle"] == 1.0  # one question is enough
    taught = [{**one, "alone": False} for one in ROWS]
    assert figures(ROWS, taught)["points"][3]["right"] == 0.5


def test_what_nobody_reported_is_left_out() -> None:
    unknown = [{**one, "confidence": None} for one in ROWS]
    assert figures(unknown, PERFECT)["points"][3]["confidence"] is None


@pytest.fixture
def page(tmp_path, monkeypatch) -> Any:
    """Writes the page for the figures of some pairs, without its picture."""
    monkeypatch.setattr(agents_page, "write_figure", lambda *args: None)
    monkeypatch.setattr(agents_page, "_chart", lambda pair: None)
    way = {"finished": 3, "tasks": 4, "teacher_calls": 5, "student_answers": 6}
    ways = [{**way, "way": "teacher alone", "dollars": 2.0}, {**way, "way": "x", "dollars": 1.0}]
    (tmp_path / "agents.json").write_text(json.dumps({"support": ways, "travel": ways}))

    def write(*pairs: Any) -> str:
        bfcl = {"date": "2026-01-02", "engines": ["e"], "samples": 5, "temperature": 0.7}
        (tmp_path / "bfcl.json").write_text(json.dumps({**bfcl, "pairs": pairs}))
        agents_page.write_page(tmp_path, tmp_path)
        return (tmp_path / "measurements" / "agents.md").read_text()

    return write


def test_a_threshold_is_chosen_on_rows_that_are_not_reported(page) -> None:
    teacher, wrong, asked = row(5, True, True), row(4, False, False), row(1, False, False)
    cheap = [row(5, True, True)] * 18
    seen = figures([*cheap, wrong, asked], [teacher] * 20)  # 5 of 5 is right, with 10% of the bill
    unseen = figures([*cheap, wrong, wrong], [teacher] * 20)
    both = {**figures(ROWS, PERFECT), "seen": seen, "unseen": unseen}
    text = page(pair(simple_python=both))
    assert "20 unseen rows (chosen on 20 others): 100.0% of the teacher's right turns" in text
    assert "at 10.0% of its bill, if 5 of 5 must agree" in text
    swapped = {**both, "seen": unseen, "unseen": figures([asked] * 20, [teacher] * 20)}
    assert "- **Missed**: simple_python, 20 unseen rows" in page(pair(simple_python=swapped))


def test_one_threshold_serves_all_categories(page) -> None:
    teacher, wrong, asked = row(5, True, True), row(4, False, False), row(1, False, False)
    cheap = [row(5, True, True)] * 18
    strict = figures([*cheap, wrong, asked], [teacher] * 20)  # needs 5 of 5
    lax = figures([*cheap, row(5, True, True), asked], [teacher] * 20)  # needs 2 of 5
    both = {
        name: {**lax, "seen": seen, "unseen": lax}
        for name, seen in (("simple_python", lax), ("multiple", strict))
    }
    assert page(pair(**both)).count("of its bill, if 5 of 5 must agree") == 2


def test_a_student_that_sees_no_tool_that_fits_answers_in_text(page) -> None:
    unsure = {**row(2, False, False), "declined": True, "fit": 0.6}  # calls one all the same
    sure = {**row(5, True, True), "declined": False, "fit": 0.5}  # its samples agree
    fitting = {**row(1, False, False), "declined": False, "fit": 0.8}
    rows = [unsure, sure, fitting, {**sure, "fit": None}]
    point = figures(rows, PERFECT, 0.7)["points"][2]
    assert (point["left"], point["right"], point["bill"]) == (0.25, 1.0, 0.7)
    assert point["random"] == 0.25 + 0.75 * 0.75
    plain = figures(rows, PERFECT)["points"][2]
    assert (plain["left"], plain["right"], plain["random"]) == (0.5, 1.0, 0.75)
    both = [
        {**pair("big", multiple=figures(rows, PERFECT, below)), "tool_fit_below": below}
        for below in (None, 0.7)
    ]
    text = page(*both)
    assert "### small and big\n" in text
    assert "<summary>small and big, tool fit 0.7: multiple 100% at 70%" in text
    assert "small and big, tool fit 0.7:\n\n- **Missed**: multiple, 4 rows" in text
    assert "an unsure student says whether a tool fits" in text


def test_the_number_of_tool_fit_leaves_every_seen_turn_its_call() -> None:
    calls = [{"declined": False, "fit": fit} for fit in (0.71239, 0.9, None)]
    text = {"declined": True, "fit": 0.2}
    assert bfcl_judge.safe_fit([text, *calls]) == 0.712
    assert bfcl_judge.safe_fit([text, calls[2]]) is None


def test_published_turns_are_judged_as_the_leaderboard_judges(tmp_path, monkeypatch) -> None:
    file = tmp_path / "results.json"
    turns = {
        "relevance_0": "Sorry, no.",
        "relevance_1": [{"add": '{"a": 1'}],
        "relevance_2": [{"gone": "{}"}],
        "simple_0": [{"my_add": '{"a": 1}'}],
    }
    lines = [
        {"id": one, "result": turn, "input_token_count": 100, "output_token_count": 10}
        for one, turn in turns.items()
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [{"function": [{"name": name}]} for name in ("my.add", "my.add", "new")]
    monkeypatch.setattr(bfcl_judge, "rows_of", lambda package, category: rows)

    class Checker:
        def is_right(self, row: Any, category: str, calls: Any) -> bool:
            wanted = (
                [] if category == "irrelevance" else [{"name": "my_add", "arguments": {"a": 1}}]
            )
            return bool(calls == wanted)

    found = bfcl_judge.published([file], Checker(), tmp_path)  # type: ignore[arg-type]
    price = float(100 * bfcl_judge.PRICE.input_mtok + 10 * bfcl_judge.PRICE.output_mtok)
    right, wrong = ({"alone": right, "price": price} for right in (True, False))
    # The function of row 2 is another one today, so its turn says nothing.
    assert found == {"irrelevance": {0: right, 1: wrong}, "simple_python": {0: right}}


def pair(teacher: str = "perfect", **categories: Any) -> Any:
    return {"student": "small", "teacher": teacher, "categories": categories}


def test_verdicts_follow_the_figures(page) -> None:
    good = figures([row(5, True, True)] * 9 + [row(1, True, False)], [row(5, True, True)] * 10)
    bad = figures(ROWS, PERFECT)
    text = page(pair(simple_python=good, live_simple=good))
    assert "- **Met**: simple_python, 10 rows: 100.0% of the teacher's right turns at 10.0%" in text
    assert "- **Open**: live_simple, 10 rows: agreement beats the random router at 0 of 0" in text
    assert "- 2 of 3 goals are met: [see" in text
    text = page(pair(live_simple=bad, irrelevance=figures(ROWS[::-1], PERFECT)))
    assert "- **Met**: live_simple, 4 rows: agreement beats the random router at 4 of 4" in text
    worse = figures([row(5, False, True), row(1, True, True), row(2, True, False)], PERFECT[:3])
    assert "- **Missed**: live_simple, 3 rows: agreement beats" in page(pair(live_simple=worse))
    text = page(pair(multiple=bad, irrelevance=figures(ROWS[:1], PERFECT[:1])))
    assert "- **Missed**: multiple, 4 rows: 75.0% of the teacher's right turns at 10.0%" in text
    assert "- **Open**: irrelevance, 1 rows: agreement beats the random router at 0 of 0" in text
    assert "x 50% (6 of 8 finished)" in text


def test_a_local_teacher_is_shown_if_it_was_measured(page) -> None:
    alone = pair(multiple=figures(ROWS, PERFECT))
    assert "small and big" not in page(alone)
    both = page(alone, pair("big", multiple=figures(ROWS, ROWS)))
    assert both.index("### small and a perfect teacher") < both.index("<summary>small and big: ")
    assert "by vote 50.0%, the teacher 50.0%" in both
