"""Predictors learned from sweeps whose truth is known, chosen and tested on rows apart."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from typing import Any

import pandas
import pytest

from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.choice import Goal
from langchain_gkt.evaluation.results.frontier import worthwhile
from langchain_gkt.evaluation.results.outcomes import OperatingPoint, Outcome, OutcomeMatrix
from langchain_gkt.evaluation.results.per_question.choice import (
    PerQuestionChoice,
    choose_per_question,
)
from langchain_gkt.evaluation.results.per_question.random_mix import random_mix
from langchain_gkt.evaluation.results.per_question.tables import tables
from langchain_gkt.gates.first_tokens import first_token_signals
from langchain_gkt.students.protocol import FirstToken

pytest.importorskip("sklearn")

COSTS = {0: 0.0, 10: 20.0, 30: 40.0, TEACHER_ALONE: 100.0}
# Shares of right answers to easy questions and to hard ones, by guidance length.
PARTED = {0: (0.95, 0.05), 10: (0.95, 0.3), 30: (0.95, 0.35), TEACHER_ALONE: (0.95, 0.9)}
NOISE = {0: (0.3, 0.3), 10: (0.4, 0.4), 30: (0.5, 0.5), TEACHER_ALONE: (0.7, 0.7)}


def made(seed: int, count: int, shares: dict[int, Any] = PARTED, told: bool = True) -> Any:
    """Return outcomes of easy and hard questions; hard ones have many numbers."""
    chance = random.Random(seed)
    hard = [chance.random() < 0.5 for _ in range(count)]
    sure = [
        [chance.uniform(0.2, 0.7) if h else chance.uniform(0.6, 1) for _ in "1234"] for h in hard
    ]
    rows = [f"{i:04d}" for i in range(count)]
    right = {n: [chance.random() < share[h] for h in hard] for n, share in shares.items()}
    signals = [first_token_signals([FirstToken(p, 2 - 2 * p) for p in row]) for row in sure]
    return OutcomeMatrix(
        right=pandas.DataFrame(right, index=rows),
        cost=pandas.DataFrame({n: [COSTS[n]] * count for n in shares}, index=rows),
        signals=signals if told else [{}] * count,
        questions=[f"Add {' and '.join('7' * (5 if h else 2))}." for h in hard],
    )


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False], ids=["first tokens", "text alone"])
def test_a_structure_that_is_there_is_found(told) -> None:
    outcomes = made(1, 180, told=told)
    found = choose_per_question(outcomes, Goal(max_loss=0.05))
    assert (found.train_rows, found.choose_rows, found.unseen_rows) == (60, 60, 60)
    teacher = found.tested.rivals["teacher alone"]
    assert found.unseen.accuracy >= 0.9 * teacher.accuracy
    assert found.unseen.cost < 0.65 * teacher.cost
    assert found.tested.mix.is_beaten and found.cross_fitted.mix.is_beaten
    assert found.cross_fitted.mix.bill < 0.8
    assert "ahead of a random router" in str(found) and "not surely" not in str(found)
    # Numbers in the question are known before the teacher is paid, and tell hard from easy.
    predictor = found.policy.predictor
    assert predictor is not None
    if not told:
        assert predictor.probe_tokens == 0
        assert predictor.predict("Add 7 and 7.", []).amount == "none"
        assert predictor.predict("Add 7 and 7 and 7 and 7 and 7.", []).amount == "all"


@pytest.mark.slow
def test_noise_is_not_taken_for_structure() -> None:
    """Of intervals at 95%, few may claim what is not there."""
    claims = [
        mix.is_beaten
        for seed in range(5)
        for found in [choose_per_question(made(seed, 90, NOISE), Goal())]
        for mix in (found.tested.mix, found.cross_fitted.mix)
    ]
    assert sum(claims) <= 1  # of 10; one at most is expected


@pytest.mark.slow
def test_the_three_parts_share_no_row() -> None:
    outcomes = made(2, 90)
    before = choose_per_question(outcomes, Goal(), seed=3)
    order = sorted(range(90), key=lambda i: outcomes.rows[i])
    random.Random(3).shuffle(order)

    def spoiled(rows: set[int]) -> PerQuestionChoice:
        right = outcomes.right.ne([i in rows for i in range(90)], axis="index")
        return choose_per_question(replace(outcomes, right=right), Goal(), seed=3)

    unseen = spoiled(set(order[60:]))
    assert unseen.policy == before.policy
    assert unseen.chosen == before.chosen
    assert unseen.unseen.accuracy == pytest.approx(1 - before.unseen.accuracy)
    # The rows it is chosen by say how much is asked, and do not change what was learned.
    chosen = spoiled(set(order[30:60])).policy.predictor
    assert chosen is not None and before.policy.predictor is not None
    assert (chosen.none, chosen.all) == (before.policy.predictor.none, before.policy.predictor.all)


@pytest.mark.slow
def test_every_row_is_unseen_once_in_the_cross_fit() -> None:
    outcomes = made(4, 75)
    tested = choose_per_question(outcomes, Goal()).cross_fitted
    assert tested.predictor.rows == 75
    for kind, length in (("student alone", 0), ("teacher alone", TEACHER_ALONE)):
        assert tested.rivals[kind].right == sum(outcomes.right[length])


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_share_of_the_questions_is_asked(share) -> None:
    outcomes = made(5, 180)
    found = choose_per_question(outcomes, Goal(share=share))
    assert found.unseen.asked == pytest.approx(share, abs=0.2)
    assert found.tested.rivals["cascade of whole answers"].asked == pytest.approx(share, abs=0.2)
    assert found.cross_fitted.predictor.asked == pytest.approx(share, abs=0.06)


@pytest.mark.slow
def test_a_dear_point_buys_more_than_a_cheap_one() -> None:
    outcomes = made(6, 120)
    asked = [
        choose_per_question(outcomes, Goal(price_per_point=price)).unseen.asked
        for price in (0.01, 1.5, 1000.0)
    ]
    assert asked[0] == 0.0
    assert 0.2 < asked[1] < 0.8
    assert asked[2] > asked[1]


@pytest.mark.slow
def test_a_teacher_that_is_no_better_is_not_asked() -> None:
    useless = {n: (0.6, 0.6) for n in COSTS}
    outcomes = made(7, 120, useless)
    assert choose_per_question(outcomes, Goal(price_per_point=0.5)).unseen.asked < 0.2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_loss": 2}, "max_loss must be a share"),
        ({"share": 30}, r"share must be a number from 0 to 1, such as 0\.3"),
        ({"share": -0.1}, "share must be"),
        ({"price_per_point": 0}, "price_per_point must be a number above 0"),
        ({"price_per_point": "1"}, "price_per_point must be"),
    ],
)
def test_goals_that_make_no_sense_are_refused(fields, said) -> None:
    with pytest.raises(ValueError, match=said):
        Goal(**fields)


def test_too_few_rows_are_refused_with_how_many_are_needed() -> None:
    with pytest.raises(ValueError, match=r"needs 60 rows, .* and there are 59; sweep over more"):
        choose_per_question(made(1, 59), Goal())
    with pytest.raises(ValueError, match="needs the questions of the rows"):
        choose_per_question(replace(made(1, 60), questions=()), Goal())
    ends = {n: PARTED[n] for n in (0, TEACHER_ALONE)}
    with pytest.raises(ValueError, match="needs guidance of some length, and only 0 was answered"):
        choose_per_question(made(1, 60, ends), Goal())
    easy = {n: (1.0, 1.0) for n in COSTS}
    with pytest.raises(ValueError, match=r"of the 20 rows to learn from these are 0; it needs 5"):
        choose_per_question(made(1, 60, easy), Goal())
    seldom = {**{n: (1.0, 1.0) for n in COSTS}, 0: (0.9, 0.9)}
    with pytest.raises(ValueError, match=r"it needs 5: sweep over about \d+ rows or more"):
        choose_per_question(made(1, 60, seldom), Goal())


def test_without_scikit_learn_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r'pip install "langchain-gkt\[predictor\]"'):
        choose_per_question(made(1, 60), Goal())


def test_of_fixed_ways_only_the_hull_is_mixed() -> None:
    outcomes = made(8, 400)
    hull = worthwhile(outcomes, range(400))
    assert hull[0] == 0 and hull[-1] == TEACHER_ALONE
    # 30 tokens are a little better than 10 at twice the price, far below the line to the teacher.
    assert 30 not in hull


def answered(right: int, cost: float, count: int = 100) -> OperatingPoint:
    outcomes = (Outcome(10, i < right, cost, True) for i in range(count))
    return OperatingPoint(length=10, outcomes=tuple(outcomes))


@pytest.mark.slow
def test_a_random_mix_is_drawn_between_its_neighbours() -> None:
    fixed = [answered(20, 0.0), answered(60, 100.0)]
    mix = random_mix(answered(40, 30.0), fixed)
    assert mix.cost == pytest.approx(50.0)  # half and half
    assert mix.bill == pytest.approx(0.6)
    assert mix.gain == pytest.approx(0.40 - (0.2 + 0.3 * 0.4))
    low, high = mix.gain_interval
    assert low <= mix.gain <= high
    beyond = random_mix(answered(70, 90.0), fixed)
    assert beyond.cost is None and beyond.bill == pytest.approx(0.9)
    free = random_mix(answered(20, 0.0), [answered(20, 0.0)])
    assert (free.gain, free.bill) == (0.0, 0.0)


@pytest.mark.slow
def test_the_tables_name_every_rival() -> None:
    found = choose_per_question(made(9, 90), Goal(share=0.5, max_loss=0.1))
    text = "\n\n".join(table.text() for table in tables(found))
    for name in (
        "predictor",
        "random mix of equal accuracy",
        "fixed length",
        "gated length",
        "cascade of whole answers",
        "teacher alone",
        "asking in 50% of the questions",
        "30 unseen rows",
        "all 90 rows, cross-fitted",
        "log_confidence",
    ):
        assert name in text
