"""Accuracy for its cost: what no cheaper way beats, as points, and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
)
from langchain_gkt.evaluation.results.summary import percent
from langchain_gkt.gates import ThresholdGate
from langchain_gkt.reporting.table import Table

_SHOWN_POINTS = 8


def unbeaten(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points that are more accurate than every cheaper one, the cheapest first."""
    kept: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def worthwhile(outcomes: OutcomeMatrix, rows: Sequence[int]) -> list[int]:
    """Return the lengths that no random mix of others beats: the hull of accuracy over cost.

    Returns:
        Lengths, the cheapest first; 0 stands for the student alone, `TEACHER_ALONE` for the
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
    """Return each kind's `unbeaten` points; see `Sweep.frontiers`.

    Every strategy beside the one that is swept is a kind of its own.

    Args:
        outcomes: The outcomes.
        measured: Further gates whose signals were measured.
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
        points[gate.kind] = unbeaten(outcomes.point(TEACHER_ALONE, one) for one in variants)
    others = [setting for setting in outcomes.settings if isinstance(setting, str)]
    points |= {strategy: [outcomes.point(strategy)] for strategy in others}
    return {**points, "teacher only": [outcomes.point(TEACHER_ALONE)]}


def frontier_table(
    outcomes: OutcomeMatrix,
    frontiers: Mapping[str, list[OperatingPoint]],
    per_question: Any,
    gates: Sequence[ThresholdGate] = (),
) -> Table:
    """Return a table of the points that no cheaper one of their kind beats.

    Args:
        outcomes: The outcomes.
        frontiers: Points by kind.
        per_question: The choice question by question, or why there is none.
        gates: Gates that had the student answer.
    """
    student, teacher = outcomes.point(0), outcomes.point(TEACHER_ALONE)

    def random_router(cost: float) -> float:
        """Return the accuracy of drawing lots between the student and the teacher alone."""
        span = teacher.cost - student.cost
        part = min(1.0, max(0.0, (cost - student.cost) / span)) if span else 1.0
        return student.accuracy + part * (teacher.accuracy - student.accuracy)

    kinds = "".join(
        f"; {gate.kind}: the whole answer, where too few of the student's answers agree"
        for gate in gates
    )
    return Table(
        title="Accuracy for its cost",
        head=[
            *("kind", "guidance", "asks below", "accuracy", "asked"),
            *(outcomes.price_name, "over lots"),
        ],
        rows=[
            [
                kind,
                point.guidance,
                point.asks_below,
                percent(point.accuracy),
                percent(point.asked),
                point.price,
                f"{100 * (point.accuracy - random_router(point.cost)):+.1f}",
            ]
            for kind, points in frontiers.items()
            for point in _thinned(points)
        ],
        notes=[
            "fixed length: guidance for every question; gated: the whole answer from the teacher, "
            f"where the student is unsure; both: guidance, where the student is unsure{kinds}",
            "the points that no cheaper one of their kind beats, at most "
            f"{_SHOWN_POINTS} of each; picked by looking at all rows, so a little too good",
            "over lots: points of accuracy over a random router, which draws lots between the "
            "student alone and the teacher alone, at the same cost",
            *_confidence_notes(outcomes),
            *_predictor_notes(outcomes, per_question),
        ],
    )


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
        f"wrong one (0.5 is chance), by the number of first tokens it is taken over: {listed}",
    ]


def _predictor_notes(outcomes: OutcomeMatrix, per_question: Any) -> list[str]:
    if isinstance(per_question, str):
        return [f"no predictor: {per_question}"]
    if outcomes.tells_confidence and not outcomes.has_signal("entropy_1"):
        return [
            "the predictor does without the entropies of the student's first tokens: torch "
            "tells them, other engines do not"
        ]
    return []


def _thinned(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """Return `_SHOWN_POINTS` of many points, the first and the last among them."""
    if len(points) <= _SHOWN_POINTS:
        return points
    last = _SHOWN_POINTS - 1
    return [points[round(i * (len(points) - 1) / last)] for i in range(_SHOWN_POINTS)]
