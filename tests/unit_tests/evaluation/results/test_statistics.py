"""Sums, intervals and tests over answers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_gkt.evaluation.results.answer_table import answer_table
from langchain_gkt.evaluation.results.comparison import Comparison
from langchain_gkt.evaluation.results.statistics import auc, covered, mcnemar, wilson
from langchain_gkt.evaluation.results.summary import Summary, summarise
from langchain_gkt.evaluation.running.records import Answer, ModelUsage
from langchain_gkt.evaluation.running.run_store import RunStore


def test_wilsons_interval() -> None:
    # The formula itself, with the normal's 97.5% point.
    z, n, right = 1.959963984540054, 40, 33
    p = right / n
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert wilson(right, n) == pytest.approx((middle - half, middle + half))
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemars_test_is_the_binomial_one(rights) -> None:
    found = mcnemar([a for a, _ in rights], [b for _, b in rights], ("a", "b"))
    ahead = sum(a and not b for a, b in rights)
    behind = sum(b and not a for a, b in rights)
    assert (found.only_first, found.only_second) == (ahead, behind)
    assert found.difference == pytest.approx((ahead - behind) / len(rights))
    n, k = ahead + behind, min(ahead, behind)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert found.p_value == pytest.approx(min(1.0, 2 * tail) if ahead != behind else 1.0)


def answer(row: str, right: bool | None, **fields) -> Answer:
    return Answer(
        **{"row": row, "mode": "guided", "text": "", "verdicts": {"answer": right}, **fields}
    )


def sums(answers: list[Answer]) -> Summary:
    return summarise(answer_table(answers))


def test_only_rows_that_both_answered_are_paired() -> None:
    folder = RunStore(None)
    rows = ["a", "b", "c"]
    settings = {"modes": ["guided", "student"], "chain": {}, "task": {"name": "made"}}
    folder.manifest = {"rows": rows, "questions": rows, "settings": settings}
    answers = [answer("a", True), answer("b", False), answer("c", True)]
    answers += [answer("c", False, mode="student"), answer("a", True, mode="student")]
    folder.lines = [{"type": "answer", "answer": one.to_dict()} for one in answers]
    (found,) = Comparison.of(folder).pairs
    assert (found.only_first, found.only_second, found.difference) == (1, 0, 0.5)
    assert "guided against student: +50.0 points" in str(found)


def test_time_that_several_answers_share_counts_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6)]) == 4
    assert covered([(0, 10), (2, 3)]) == 10
    assert covered([]) == 0
    spans = [
        answer("a", True, started=0.0, seconds=2.0),
        answer("b", None, started=1.0, seconds=2.0),
    ]
    summary = sums(spans)
    assert (summary.wall_seconds, summary.unparsed, summary.accuracy) == (3.0, 0.5, 0.5)


def test_unknown_money_is_unknown_in_every_sum() -> None:
    known, unknown = (
        ModelUsage(prompt_cost="0.1", completion_cost="0.2"),
        ModelUsage(prompt_cost=None),
    )
    first = answer("a", True, teacher=known)
    assert sums([first, replace(first, row="b")]).cost == Decimal("0.6")
    assert sums([first, answer("b", True, teacher=unknown)]).cost is None
    later = answer("b", True, teacher=ModelUsage(first_token_seconds=2.0))
    assert sums([first, later]).teacher.first_token_seconds == 2.0


def test_a_part_that_stops_earlier_costs_its_tokens_alone() -> None:
    whole = ModelUsage(
        calls=1,
        prompt_tokens=5,
        completion_tokens=8,
        prompt_cost="0.5",
        completion_cost="0.8",
        seconds=4.0,
        first_token_seconds=1.0,
    )
    part = whole.up_to(2, 8)
    assert (part.prompt_tokens, part.completion_tokens, part.seconds) == (5, 2, 1.0)
    assert part.cost == Decimal("0.7")
    assert part.first_token_seconds is None
    assert replace(whole, completion_cost=None).up_to(2, 8).cost is None
    assert whole.up_to(0, 0).cost == Decimal("0.5")


def test_answers_travel_through_json() -> None:
    one = answer("a", None, teacher=ModelUsage(calls=1, prompt_cost=None), length=3, sample=2)
    one = replace(one, signals={"probability_1": 0.5})
    assert Answer.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_lines_of_before_signals_had_names_are_read() -> None:
    old = answer("a", True).to_dict()
    del old["signals"], old["sample"]
    more = {"confidence": 0.7, "probabilities": [0.5, 0.25], "entropies": [1.0, 2.0]}
    assert Answer.from_dict({**old, **more}).signals == {
        "confidence": 0.7,
        "probability_1": 0.5,
        "probability_2": 0.25,
        "entropy_1": 1.0,
        "entropy_2": 2.0,
    }
    assert Answer.from_dict({**old, **dict.fromkeys(more)}).signals == {}


def test_auc() -> None:
    assert auc([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    assert auc([0.1, 0.9], [True, False]) == 0.0
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.5], [True]) == 0.5


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_auc_counts_pairs(answers) -> None:
    good = [score for score, right in answers if right]
    bad = [score for score, right in answers if not right]
    pairs = [(a > b) + (a == b) / 2 for a in good for b in bad]
    scores, right = [score for score, _ in answers], [right for _, right in answers]
    assert auc(scores, right) == pytest.approx(sum(pairs) / len(pairs) if pairs else 0.5)
