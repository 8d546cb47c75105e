"""The choice of a guidance length: made on seen rows, tested on unseen ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models.exam import PRICE, pair, task

from langchain_gkt import GuidancePolicy
from langchain_gkt.evaluation import compare, sweep
from langchain_gkt.evaluation.results.choice import choose_among
from langchain_gkt.evaluation.results.frontier import frontiers
from langchain_gkt.evaluation.results.outcomes import OutcomeMatrix
from langchain_gkt.gates.first_tokens import first_token_signals
from langchain_gkt.students.protocol import FirstToken


@pytest.mark.slow
def test_choose_finds_the_length_that_is_enough(tmp_path) -> None:
    found = sweep(pair(), task(20), lengths=[2, 5, 6, 7, 12], teacher_price=PRICE)
    choice = found.choose(max_loss=0.0)
    # One token more than the student needs: the last word is cut away.
    assert choice.policy == GuidancePolicy(tokens=6)
    assert (choice.seen_rows, choice.unseen_rows) == (10, 10)
    assert choice.unseen.accuracy == 1.0
    assert choice.unseen.cost == pytest.approx(1000 * (0.01 + 6 * 0.002))
    assert found.choose(max_loss=0.9).policy.tokens == 0
    choice.policy.save(tmp_path / "policy.json")
    chain = pair(guidance=tmp_path / "policy.json")
    assert chain.guidance_tokens == 6
    again = compare(chain, task(20), modes=["guided"], teacher_price=PRICE)
    assert again.summaries["guided"].accuracy == 1.0


@pytest.mark.slow
def test_choose_with_a_gate_leaves_the_sure_ones_alone() -> None:
    found = sweep(pair(), task(40), lengths=[6], teacher_price=PRICE)
    choice = found.choose(max_loss=0.0, gate=True)
    assert choice.policy.tokens == 6
    assert choice.policy.probe_tokens >= 4  # before that the student does not know either
    assert choice.unseen.accuracy == 1.0
    assert choice.unseen.cost == pytest.approx(choice.unseen.asked * 1000 * 0.022)
    assert choice.unseen.asked < 0.75
    chain = pair(guidance=choice.policy, guidance_tokens=6)
    real = compare(chain, task(40), modes=["guided"], teacher_price=PRICE)
    assert real.summaries["guided"].accuracy == 1.0
    assert real.summaries["guided"].asked == 0.5
    kinds = found.frontiers()
    assert set(kinds) == {"student only", "fixed length", "gated", "both", "teacher only"}
    cheapest = {
        kind: min(p.cost for p in ps if p.accuracy == 1.0)
        for kind, ps in kinds.items()
        if kind != "student only"
    }
    assert cheapest["both"] < cheapest["gated"] < cheapest["teacher only"]
    assert cheapest["both"] < cheapest["fixed length"]


def test_choose_refuses_what_it_cannot_do() -> None:
    found = sweep(pair(), task(3), lengths=[6])
    with pytest.raises(ValueError, match="needs 4 rows"):
        found.choose()
    assert found.choices() == {}
    found = sweep(pair(), task(6), lengths=[6])
    with pytest.raises(ValueError, match="max_loss must be a share"):
        found.choose(max_loss=2)
    blind = replace(found.outcomes, signals=[{}] * 6)
    with pytest.raises(ValueError, match="gate=True is based on the student's confidence"):
        choose_among(blind, max_loss=0.02, gate=True, seed=0)
    assert "gated" not in frontiers(blind)


def made_outcomes(seed: int, count: int, priced: bool = True) -> OutcomeMatrix:
    chance = random.Random(seed)
    right = {
        length: [
            chance.random() < 0.3 + 0.06 * (length if length >= 0 else 11) for _ in range(count)
        ]
        for length in (0, 5, 10, -1)
    }
    cost = {length: [float(length if length >= 0 else 30)] * count for length in right}
    rows = [f"{i:04d}" for i in range(count)]
    return OutcomeMatrix(
        right=pandas.DataFrame(right, index=rows),
        cost=pandas.DataFrame(cost, index=rows),
        signals=[
            first_token_signals([FirstToken(chance.random()) for _ in range(32)]) for _ in rows
        ],
        priced=priced,
    )


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(4, 60), st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=40)
def test_a_choice_keeps_its_word_on_the_rows_it_saw(seed, count, loss) -> None:
    outcomes = made_outcomes(seed, count)
    for gate in (False, True):
        choice = choose_among(outcomes, max_loss=loss, gate=gate, seed=seed)
        assert choice.seen_rows + choice.unseen_rows == count
        assert abs(choice.seen_rows - choice.unseen_rows) <= 1
        assert choice == choose_among(outcomes, max_loss=loss, gate=gate, seed=seed)
        free = choose_among(outcomes, max_loss=0.99, gate=gate, seed=seed)
        assert free.chosen.cost <= choice.chosen.cost


def test_the_unseen_rows_have_no_say_in_the_choice() -> None:
    outcomes = made_outcomes(3, 40)
    before = choose_among(outcomes, max_loss=0.02, gate=True, seed=5)
    order = sorted(range(40), key=lambda i: outcomes.rows[i])
    random.Random(5).shuffle(order)
    unseen = set(order[20:])
    spoiled = outcomes.right.ne([i in unseen for i in range(40)], axis="index")
    after = choose_among(replace(outcomes, right=spoiled), max_loss=0.02, gate=True, seed=5)
    assert (after.policy, after.chosen) == (before.policy, before.chosen)
    assert after.unseen.accuracy == pytest.approx(1 - before.unseen.accuracy)


def test_without_prices_tokens_are_counted() -> None:
    found = sweep(pair(), task(6), lengths=[6])
    assert found.by_length[6].cost is None
    assert found.outcomes.price_name == "teacher tokens per answer"
    assert found.choose(max_loss=0.0).unseen.cost == 16.0
    assert "unknown" in str(found)


def certain_outcomes(**lengths: tuple[float, float]) -> OutcomeMatrix:
    """Return 20 rows of which every half is right alike, by ``length: (accuracy, cost)``."""

    known = {int(name[1:]): one for name, one in lengths.items()}
    known = {0: (0.0, 0.0), **known, -1: (1.0, 99.0)}
    rows = [f"{i:04d}" for i in range(20)]
    right = {n: [i < 20 * accuracy for i in range(20)] for n, (accuracy, _) in known.items()}
    cost = {n: [cost] * 20 for n, (_, cost) in known.items()}
    return OutcomeMatrix(
        right=pandas.DataFrame(right, index=rows), cost=pandas.DataFrame(cost, index=rows)
    )


@pytest.mark.parametrize("order", [("a5", "a8"), ("a8", "a5")])
def test_of_equally_cheap_lengths_the_more_accurate_is_chosen(order: Sequence[str]) -> None:
    ways = {"a5": (0.8, 3.0), "a8": (0.9, 3.0)}
    outcomes = certain_outcomes(**{name: ways[name] for name in order})
    for seed in range(5):
        assert choose_among(outcomes, max_loss=0.5, gate=False, seed=seed).policy.tokens == 8
    fixed = frontiers(outcomes)["fixed length"]
    assert [point.length for point in fixed] == [8]


@pytest.mark.parametrize("order", [("a5", "a8"), ("a8", "a5")])
def test_of_equally_accurate_lengths_the_cheaper_is_the_best(order: Sequence[str]) -> None:
    ways = {"a5": (0.9, 4.0), "a8": (0.9, 3.0)}
    outcomes = certain_outcomes(**{name: ways[name] for name in order})
    for seed in range(5):
        choice = choose_among(outcomes, max_loss=0.0, gate=False, seed=seed)
        assert (choice.best.length, choice.policy.tokens) == (8, 8)
