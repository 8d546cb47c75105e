"""Fits predictors to the rows of a sweep, with scikit-learn. The results are plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.frontier import worthwhile
from langchain_gkt.evaluation.results.outcomes import CONFIDENCE_GATES, OutcomeMatrix, most_accurate
from langchain_gkt.gates.learned import (
    VERSION,
    Expectation,
    Predictor,
    feature_names,
    feature_values,
)

FEWEST_ROWS = 60
"""With fewer rows, a part holds too few to learn from, to choose by or to test on."""
_FEWEST_HELPED = 5
_STRENGTH = 0.05
"""Inverse strength of regularization. A strong one, because the rows are few. Cross-validation
among them would give another strength for each part of the rows.
"""
_QUANTILES = tuple(i / 12 for i in range(13))


def predictors(outcomes: OutcomeMatrix, rows: Sequence[int]) -> dict[int, Predictor]:
    """Learn from some rows one predictor for each guidance length that pays for some questions."""
    _refuse_few_helped(outcomes, rows)
    probe = 0
    if outcomes.tells_confidence:
        probe = outcomes.best_gate(rows, CONFIDENCE_GATES).probe_tokens
    names = feature_names(
        probabilities=outcomes.tells_confidence, entropies=outcomes.has_signal("entropy_1")
    )
    values = [feature_values(names, outcomes.features[i], probe_tokens=probe) for i in rows]
    inner = [length for length in worthwhile(outcomes, rows) if length not in (0, TEACHER_ALONE)]
    if not inner:
        points = [outcomes.point(length, only=rows) for length in outcomes.lengths if length]
        inner = [most_accurate(points).length]
    fitted = {n: _fit(outcomes, n, rows, values) for n in (0, *inner, TEACHER_ALONE)}
    return {
        length: Predictor(
            version=VERSION,
            features=names,
            probe_tokens=probe,
            none=fitted[0],
            some=fitted[length],
            all=fitted[TEACHER_ALONE],
            price_per_point=1.0,
            unit=outcomes.price_name,
        )
        for length in inner
    }


def _refuse_few_helped(outcomes: OutcomeMatrix, rows: Sequence[int]) -> None:
    right = outcomes.right.iloc[list(rows)]
    helped = int((~right[0] & right.any(axis="columns")).sum())
    if helped >= _FEWEST_HELPED:
        return
    wanted = "over harder questions"
    if helped:
        more = math.ceil(len(outcomes.rows) * _FEWEST_HELPED / helped)
        wanted = f"over about {more} rows or more"
    raise ValueError(
        f"predictor=True learns which questions the teacher's help makes right, and of the "
        f"{len(rows)} rows to learn from these are {helped}; it needs {_FEWEST_HELPED}: sweep "
        f"{wanted}"
    )


def prices_to_try(
    predictor: Predictor, outcomes: OutcomeMatrix, rows: Sequence[int]
) -> list[float]:
    """Return prices per point, the lowest first, at which it begins to ask for more."""
    amounts = (predictor.none, predictor.some, predictor.all)
    prices, count = [], predictor.probe_tokens
    for row in rows:
        values = feature_values(predictor.features, outcomes.features[row], probe_tokens=count)
        for less, more in combinations(amounts, 2):
            gain = 100 * (more.accuracy(values) - less.accuracy(values))
            if gain > 0 and more.cost > less.cost:
                prices.append((more.cost - less.cost) / gain)
    if not prices:
        return [max(predictor.all.cost, 1e-9)]
    prices.sort()
    last = len(prices) - 1
    return sorted({*(prices[round(q * last)] for q in _QUANTILES), 2 * prices[-1]})


def _fit(
    outcomes: OutcomeMatrix, length: int, rows: Sequence[int], values: Sequence[Sequence[float]]
) -> Expectation:
    """Fit the probability that one setting is right."""
    point = outcomes.point(length, only=rows)
    right, cost = point.rights, point.cost
    rare = min(sum(right), len(right) - sum(right))
    if rare < 3:  # nothing to separate them by
        share = (sum(right) + 1) / (len(right) + 2)
        bias = math.log(share / (1 - share))
        return Expectation(weights=(0.0,) * len(values[0]), bias=bias, cost=cost)
    weights, bias = _logistic_regression(values, right)
    return Expectation(weights=weights, bias=bias, cost=cost)


def _logistic_regression(
    values: Sequence[Sequence[float]], right: Sequence[bool]
) -> tuple[tuple[float, ...], float]:
    """Return weights and bias for raw features, regularized over standardized ones."""
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
