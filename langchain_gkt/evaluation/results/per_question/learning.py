"""Fits predictors to the rows of a sweep, with scikit-learn; what comes out is plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from langchain_gkt.evaluation.results.frontier import TEACHER_ALONE, OutcomeMatrix
from langchain_gkt.gates.learned import (
    VERSION,
    Expectation,
    Predictor,
    feature_names,
    feature_values,
    question_signals,
)
from langchain_gkt.students.protocol import FirstToken

FEWEST_ROWS = 60
"""With fewer, a part of the rows holds too few to learn from, to choose by or to test on."""
_FEWEST_HELPED = 5
_STRENGTH = 0.05
"""Inverse strength of regularization. A strong one: the rows are few, and a strength chosen by
cross-validation among them would differ from one part of the rows to the next."""
_QUANTILES = tuple(i / 12 for i in range(13))


@dataclass(frozen=True)
class Questions:
    """What is known of each row of a sweep before the teacher is paid.

    Attributes:
        ways: The sweep's outcomes.
    """

    ways: OutcomeMatrix

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features that every row has."""
        ways = self.ways
        return feature_names(
            probabilities=ways.probabilities is not None, entropies=ways.entropies is not None
        )

    @cached_property
    def first_tokens(self) -> list[list[FirstToken]]:
        """The student's first tokens, row by row; empty if it does not tell them."""
        ways = self.ways
        if ways.probabilities is None:
            return [[] for _ in ways.rows]
        entropies: Sequence[Sequence[float | None]] = ways.entropies or [
            [None] * len(row) for row in ways.probabilities
        ]
        return [
            [FirstToken(p, e) for p, e in zip(*row, strict=True)]
            for row in zip(ways.probabilities, entropies, strict=True)
        ]

    def values(self, rows: Sequence[int], probe: int) -> list[tuple[float, ...]]:
        """Work out the features of some rows.

        Args:
            rows: Their numbers.
            probe: How many first tokens are looked at.

        Returns:
            One line for each row.
        """
        questions, first = self.ways.questions, self.first_tokens
        return [
            feature_values(self.names, question_signals(questions[row], first[row][:probe]))
            for row in rows
        ]


def predictors(questions: Questions, rows: Sequence[int]) -> dict[int, Predictor]:
    """Learn one predictor for each guidance length that is worth its price to some questions.

    Args:
        questions: The sweep.
        rows: Numbers of the rows to learn from.

    Returns:
        Predictors by guidance length; their price per point is yet to be chosen.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If help makes too few of the rows right to learn from.
    """
    ways = questions.ways
    refuse_few_helped(ways, rows)
    probe = ways.gates(rows)[0] if ways.tells_confidence else 0
    values = questions.values(rows, probe)
    inner = [n for n in worthwhile(ways, rows) if n not in (0, TEACHER_ALONE)]
    if not inner:
        at = {n: ways.point(n, only=rows) for n in ways.lengths if n}
        inner = [max(at, key=lambda n: (at[n].accuracy, -at[n].cost))]
    fitted = {n: _fit(ways, n, rows, values) for n in (0, *inner, TEACHER_ALONE)}
    return {
        length: Predictor(
            version=VERSION,
            features=questions.names,
            probe_tokens=probe,
            none=fitted[0],
            some=fitted[length],
            all=fitted[TEACHER_ALONE],
            price_per_point=1.0,
            unit=ways.price_name,
        )
        for length in inner
    }


def refuse_few_helped(ways: OutcomeMatrix, rows: Sequence[int]) -> None:
    """Refuse rows of which help makes too few right to learn which.

    Args:
        ways: The outcomes.
        rows: Numbers of the rows to learn from.

    Raises:
        ValueError: If there are too few.
    """
    helped = sum(
        not ways.outcomes[0].right[row]
        and any(outcome.right[row] for outcome in ways.outcomes.values())
        for row in rows
    )
    if helped >= _FEWEST_HELPED:
        return
    wanted = "over harder questions"
    if helped:
        wanted = f"over about {math.ceil(len(ways.rows) * _FEWEST_HELPED / helped)} rows or more"
    raise ValueError(
        f"predictor=True learns which questions the teacher's help makes right, and of the "
        f"{len(rows)} rows to learn from these are {helped}; it needs {_FEWEST_HELPED}: sweep "
        f"{wanted}"
    )


def worthwhile(ways: OutcomeMatrix, rows: Sequence[int]) -> list[int]:
    """Return the lengths that no random mix of others beats: the hull of accuracy over cost.

    Args:
        ways: The outcomes.
        rows: Numbers of the rows to go by.

    Returns:
        Lengths, the cheapest first; 0 stands for the student alone, `TEACHER_ALONE` for the
        teacher alone.
    """
    points = [ways.point(length, only=rows) for length in (*ways.lengths, TEACHER_ALONE)]
    hull: list[Any] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if hull and point.accuracy <= hull[-1].accuracy:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [point.length for point in hull]


def _slope(first: Any, second: Any) -> float:
    rise, run = second.accuracy - first.accuracy, second.cost - first.cost
    return float(rise / run) if run else math.inf


def prices_to_try(predictor: Predictor, values: Sequence[Sequence[float]]) -> list[float]:
    """Return prices per point at which a predictor begins to ask for more of some questions.

    Args:
        predictor: The predictor; its own price plays no part.
        values: Features of the questions.

    Returns:
        Prices, the lowest first.
    """
    found = []
    for one in values:
        ways = (predictor.none, predictor.some, predictor.all)
        for less, more in combinations(ways, 2):
            gain = 100 * (more.accuracy(one) - less.accuracy(one))
            if gain > 0 and more.cost > less.cost:
                found.append((more.cost - less.cost) / gain)
    if not found:
        return [max(predictor.all.cost, 1e-9)]
    found.sort()
    last = len(found) - 1
    return sorted({*(found[round(q * last)] for q in _QUANTILES), 2 * found[-1]})


def _fit(
    ways: OutcomeMatrix, length: int, rows: Sequence[int], values: Sequence[Sequence[float]]
) -> Expectation:
    """Fit the probability that one way to answer is right."""
    outcome = ways.outcomes[length]
    right = [outcome.right[row] for row in rows]
    cost = sum(outcome.cost[row] for row in rows) / len(rows)
    rare = min(sum(right), len(right) - sum(right))
    if rare < 3:  # nothing to part them by
        share = (sum(right) + 1) / (len(right) + 2)
        bias = math.log(share / (1 - share))
        return Expectation(weights=(0.0,) * len(values[0]), bias=bias, cost=cost)
    weights, bias = _logistic_regression(values, right)
    return Expectation(weights=weights, bias=bias, cost=cost)


def _logistic_regression(
    values: Sequence[Sequence[float]], right: Sequence[bool]
) -> tuple[tuple[float, ...], float]:
    """Return weights and bias for features as they are, regularized over standardized ones."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            'a predictor is learned with scikit-learn: pip install "langchain-gkt[predictor]"'
        ) from error
    scaler = StandardScaler()
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(scaler.fit_transform(values), right)
    weights = [float(w / s) for w, s in zip(model.coef_[0], scaler.scale_, strict=True)]
    shift = sum(w * float(mean) for w, mean in zip(weights, scaler.mean_, strict=True))
    return tuple(weights), float(model.intercept_[0]) - shift
