"""Accuracy for its cost as a table, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_gkt.evaluation.results.base import percent
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
    random_router,
)
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.gates import ThresholdGate
from langchain_gkt.reporting.table import Table

_SHOWN_POINTS = 8


def frontier_table(
    outcomes: OutcomeMatrix,
    frontiers: Mapping[str, list[OperatingPoint]],
    per_question: Any,
    gates: Sequence[ThresholdGate] = (),
) -> Table:
    """Return the points that no cheaper one of their kind beats.

    Args:
        outcomes: The outcomes.
        frontiers: Points by kind.
        per_question: The choice question by question, or why there is none.
        gates: Gates that had the student answer.

    Returns:
        The table.
    """
    lines = [
        [
            kind,
            point.guidance,
            point.asks_below,
            percent(point.accuracy),
            percent(point.asked),
            point.price,
            f"{100 * (point.accuracy - random_router(outcomes, point.cost)):+.1f}",
        ]
        for kind, points in frontiers.items()
        for point in _thinned(points)
    ]
    kinds = "".join(
        f"; {gate.kind}: the whole answer, where too few of the student's answers agree"
        for gate in gates
    )
    notes = [
        "fixed length: guidance for every question; gated: the whole answer from the teacher, "
        f"where the student is unsure; both: guidance, where the student is unsure{kinds}",
        "the points that no cheaper one of their kind beats, at most "
        f"{_SHOWN_POINTS} of each; picked by looking at all rows, so a little too good",
        "over lots: points of accuracy over a random router, which draws lots between the student "
        "alone and the teacher alone, at the same cost",
        *_confidence_notes(outcomes),
        *_predictor_notes(outcomes, per_question),
    ]
    head = ["kind", "guidance", "asks below", "accuracy", "asked", outcomes.price_name, "over lots"]
    return Table(title="Accuracy for its cost", head=head, rows=lines, notes=notes)


def agreement_notes(
    gates: Sequence[ThresholdGate], student: Summary, further: Mapping[str, Summary]
) -> list[str]:
    """Say what measuring a gate took, of gates that had the student answer.

    Args:
        gates: The gates.
        student: Sums of the student alone.
        further: Sums of other answers by name, those of the gates among them.

    Returns:
        A note on each.
    """
    notes = []
    for gate in gates:
        if (one := further.get(str(gate.shown_as))) is None:
            continue
        tokens, base = one.student.completion_tokens, student.student.completion_tokens
        times = f", {tokens / base:.1f} times those of one answer" if base else ""
        notes.append(
            f"{gate.shown_as}: the student's answers by which the gate {gate.kind!r} decides; they "
            f"took {tokens / one.rows:.0f} completion tokens of the student a question{times}, "
            "which every answer of that gate pays for"
        )
    return notes


def _confidence_notes(outcomes: OutcomeMatrix) -> list[str]:
    if not outcomes.tells_confidence:
        return ["the student does not report how sure it is, so there is no gate"]
    areas = {
        gate.probe_tokens: outcomes.separation(gate, range(len(outcomes.rows)))
        for gate in CONFIDENCE_GATES
    }
    found = ", ".join(f"{tokens}: {area:.2f}" for tokens, area in areas.items())
    return [
        "asks below: this confidence over the student's first "
        f"{max(areas, key=lambda tokens: areas[tokens])} token(s)",
        "confidence: how often the student is surer of a right answer of its own than of a "
        f"wrong one (0.5 is chance), by the number of first tokens it is taken over: {found}",
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
