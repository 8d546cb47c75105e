"""Accuracy against cost: the ways that no cheaper one beats, as points, and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_gkt.evaluation.results import cells
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.any_way import random_router
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
    written,
)
from langchain_gkt.gates import ThresholdGate
from langchain_gkt.reporting.table import Table

_SHOWN_POINTS = 8
_GOALS = (0.25, 0.5, 0.75, 0.9, 1.0)


def unbeaten(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points that are more accurate than every cheaper one, the cheapest first."""
    kept: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def worthwhile(outcomes: OutcomeMatrix, rows: Sequence[int]) -> list[int]:
    """Return the lengths that no random mix of others beats, on the hull of accuracy over cost.

    Returns:
        Lengths, the cheapest first. 0 stands for the student alone, `TEACHER_ALONE` for the
        teacher alone.
    """
    lengths = [*outcomes.lengths, TEACHER_ALONE]
    hull: list[OperatingPoint] = []
    for point in unbeaten(outcomes.point(length, only=rows) for length in lengths):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [point.length for point in hull]


def _slope(first: OperatingPoint, second: OperatingPoint) -> float:
    rise, run = second.accuracy - first.accuracy, second.cost - first.cost
    return rise / run if run else math.inf


def frontiers(
    outcomes: OutcomeMatrix, measured: Sequence[ThresholdGate] = ()
) -> dict[str, list[OperatingPoint]]:
    """Return each kind's `unbeaten` points. See `Sweep.frontiers`.

    Every strategy besides the swept one is a kind of its own.
    """
    every = range(len(outcomes.rows))
    lengths = [length for length in outcomes.lengths if length]
    points = {
        "student only": [outcomes.point(0)],
        "fixed length": unbeaten(outcomes.point(n) for n in lengths),
    }
    if outcomes.tells_confidence:
        gates = outcomes.gates(every)
        points["gated"] = unbeaten(outcomes.point(TEACHER_ALONE, gate) for gate in gates)
        points["both"] = unbeaten(outcomes.point(n, gate) for n in lengths for gate in gates)
    for gate in measured:
        variants = outcomes.gates(every, [gate])
        points[gate.kind] = unbeaten(outcomes.point(TEACHER_ALONE, variant) for variant in variants)
    others = [setting for setting in outcomes.settings if isinstance(setting, str)]
    points |= {strategy: [outcomes.point(strategy)] for strategy in others}
    return {**points, "teacher only": [outcomes.point(TEACHER_ALONE)]}


def frontier_table(
    outcomes: OutcomeMatrix,
    frontiers: Mapping[str, list[OperatingPoint]],
    per_question: Any,
    gates: Sequence[ThresholdGate] = (),
) -> Table:
    """Return a table of the points that no cheaper one of their kind beats."""

    def over_router(point: OperatingPoint) -> float:
        lots = random_router(outcomes, point.cost, range(len(outcomes.rows)))
        return point.accuracy - lots.accuracy

    kinds = "".join(
        f"; {gate.kind}: the whole answer, where too few of the student's answers agree"
        for gate in gates
    )
    lines = [
        {
            "kind": kind,
            "guidance": point.guidance,
            "asks below": point.asks_below,
            "accuracy": cells.percent(point.accuracy),
            "asked": cells.percent(point.asked),
            outcomes.price_name: point.price,
            "over router": f"{100 * over_router(point):+.1f}",
        }
        for kind, points in frontiers.items()
        for point in _thinned(points)
    ]
    return Table.of(
        lines,
        title="Accuracy for its cost",
        notes=[
            "fixed length: guidance for every question; gated: the whole answer from the teacher, "
            f"where the student is unsure; both: guidance, where the student is unsure{kinds}",
            "the points that no cheaper one of their kind beats, at most "
            f"{_SHOWN_POINTS} of each; picked by looking at all rows, so a little too good",
            "over router: points of accuracy over a random router, which draws lots between the "
            "student alone and the teacher alone, at the same cost",
            *_confidence_notes(outcomes),
            *_predictor_notes(outcomes, per_question),
        ],
    )


def price_table(outcomes: OutcomeMatrix, frontiers: Mapping[str, list[OperatingPoint]]) -> Table:
    """Return the lowest cost of some accuracies, by kind of a frontier."""
    kinds = [kind for kind in frontiers if kind not in ("teacher only", "student only")]

    def cell(accuracy: float, kind: str) -> str:
        price = price_of(accuracy, frontiers[kind])
        return "-" if price is None else written(price, outcomes.priced)

    return Table(
        title=f"What an accuracy costs, {outcomes.price_name}",
        head=["accuracy of at least", *kinds],
        rows=[
            [cells.percent(goal), *(cell(goal, kind) for kind in kinds)] for goal in goals(outcomes)
        ],
        notes=["the cheapest of each kind, picked by looking at all rows"],
    )


def goals(outcomes: OutcomeMatrix) -> list[float]:
    """Return some accuracies between the student's and the best that guidance reaches."""
    low = outcomes.point(0).accuracy
    high = max(outcomes.point(length).accuracy for length in outcomes.lengths)
    return sorted({low + (high - low) * part for part in _GOALS}) if high > low else []


def price_of(accuracy: float, points: Iterable[OperatingPoint]) -> float | None:
    """Return the lowest cost of an accuracy. None if no point is so accurate."""
    return min((point.cost for point in points if point.accuracy >= accuracy), default=None)


def _confidence_notes(outcomes: OutcomeMatrix) -> list[str]:
    if not outcomes.tells_confidence:
        return ["the student does not report how sure it is, so there is no gate"]
    every = range(len(outcomes.rows))
    areas = {gate.probe_tokens: outcomes.separation(gate, every) for gate in CONFIDENCE_GATES}
    listed = ", ".join(f"{tokens}: {area:.2f}" for tokens, area in areas.items())
    return [
        "asks below: this confidence over the student's first "
        f"{max(areas, key=lambda tokens: areas[tokens])} token(s)",
        "confidence: how often the student is surer of a right answer of its own than of a "
        f"wrong one (0.5 is chance), by how many first tokens count: {listed}",
    ]


def _predictor_notes(outcomes: OutcomeMatrix, per_question: Any) -> list[str]:
    if isinstance(per_question, str):
        return [f"no predictor: {per_question}"]
    if outcomes.tells_confidence and not outcomes.has_signal("entropy_1"):
        return [
            "the predictor does without the entropies of the student's first tokens: torch "
            "reports them, other engines do not"
        ]
    return []


def _thinned(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """Return `_SHOWN_POINTS` of many points, the first and the last among them."""
    if len(points) <= _SHOWN_POINTS:
        return points
    last = _SHOWN_POINTS - 1
    return [points[round(i * (len(points) - 1) / last)] for i in range(_SHOWN_POINTS)]
