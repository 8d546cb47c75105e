"""The choice among every measured way to answer, beside what else the money buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from langchain_gkt.evaluation.results import cells
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.choice import Choice, Goal, asking, halves
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
    Setting,
    most_accurate,
)
from langchain_gkt.gates import ThresholdGate
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.reporting.table import Table

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A sweep's measurements of one policy.

    Attributes:
        gates: Gates that had the student answer.
        policy: What all ways have in common: the cut and the teacher's prompt.
    """

    outcomes: OutcomeMatrix
    gates: Sequence[ThresholdGate] = ()
    policy: GuidancePolicy = field(default_factory=GuidancePolicy)


class Rival(NamedTuple):
    """An alternative to the choice, on the unseen rows."""

    name: str
    accuracy: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class AnyWayChoice(Choice):
    """The way chosen among all, and its alternatives.

    Attributes:
        name: The policy's name. Empty if there is one policy only.
        teacher: The teacher alone on the whole conversation, on the unseen rows.
        rivals: The alternatives, the random router first.
    """

    name: str = ""
    teacher: OperatingPoint
    rivals: tuple[Rival, ...]

    @property
    def kept(self) -> float | None:
        """Accuracy on the unseen rows, as a share of the teacher's. None if that is zero."""
        return self.unseen.accuracy / self.teacher.accuracy if self.teacher.right else None

    @property
    def bill(self) -> float | None:
        """Price of the unseen rows, as a share of the teacher's. None if that is zero."""
        return self.unseen.cost / self.teacher.cost if self.teacher.cost else None

    @property
    def sentence(self) -> str:
        """The choice and its result, beside the router that draws lots."""
        router = self.rivals[0]
        return (
            f"Chosen among all ways on {self.seen_rows} rows: {self.chosen.way}. On the other "
            f"{self.unseen_rows} rows {cells.percent(self.unseen.accuracy)} are right, which keeps "
            f"{cells.ratio(self.kept, 1)} of the teacher's accuracy at {cells.ratio(self.bill, 1)} "
            f"of its bill ({router.name} {cells.percent(router.accuracy)})."
        )

    def __str__(self) -> str:
        """Return the choice, and the table of its alternatives."""
        named = f"{self.name}: " if self.name else ""
        return f"{named}{self.chosen.way}, chosen on {self.seen_rows} rows\n{self.table().text()}"

    def table(self) -> Table:
        """Return the choice beside its rivals, on the unseen rows."""
        mine = Rival(f"chosen: {self.chosen.way}", self.unseen.accuracy, self.unseen.cost)
        teacher = Rival("teacher alone", self.teacher.accuracy, self.teacher.cost)
        lines = [
            {
                "way": rival.name,
                "accuracy": cells.percent(rival.accuracy),
                "keeps": cells.ratio(rival.accuracy, self.teacher.accuracy),
                "pays": cells.ratio(rival.cost, self.teacher.cost),
            }
            for rival in (mine, *self.rivals, teacher)
        ]
        return Table.of(
            lines,
            title=f"The choice among all ways, on {self.unseen_rows} unseen rows",
            notes=[
                "keeps, pays: shares of the teacher alone on the whole conversation",
                "random router: draws lots between student and teacher at the price of the choice",
                "confidence cascade: whole answers where the student is unsure, at no higher price "
                "on the rows that chose",
                "oracle: asks only where the student is wrong and the teacher right, at the price "
                "of the choice. No real router can do that",
            ],
        )


def choose_any_way(
    measured: Mapping[str, Measured],
    *,
    max_loss: float = 0.02,
    max_bill: float | None = None,
    seed: int = 0,
    whole: str | None = None,
) -> AnyWayChoice:
    """Choose on half of the rows among every way, and test the choice on the others.

    Ways are the student alone, every guidance length, the teacher alone, and, behind each gate,
    every length and the whole answer, for each policy. Of equal ways the simplest wins.

    Args:
        measured: The measurements, by the policy's name. All of the same rows.
        max_loss: As for `Sweep.choose`, like the next two.
        max_bill: See there.
        seed: See there.
        whole: Name of the policy that shows the teacher the whole conversation. None for the
            first one.

    Raises:
        ValueError: If there are too few rows, an argument makes no sense, or nothing costs so
            little.
    """
    goal = Goal(max_loss=max_loss)
    if max_bill is not None:
        check_max_bill(max_bill)
    base = measured[whole or next(iter(measured))].outcomes
    seen, unseen = halves(base.rows, seed)
    ways = [(name, point) for name, one in measured.items() for point in _points(one, seen)]
    ways.sort(key=lambda way: _complexity(way[1]))  # the first of equals wins
    points = [point for _, point in ways]
    if max_bill is None:
        chosen = goal.best(points, most_accurate(points).accuracy)
    else:
        limit = max_bill * base.point(TEACHER_ALONE, only=seen).cost
        affordable = _within(points, limit)
        if affordable is None:
            raise ValueError(f"max_bill={max_bill}: no way costs so little")
        chosen = affordable
    name = next(name for name, point in ways if point is chosen)
    mine = measured[name]
    tested = mine.outcomes.point(chosen.length, chosen.gate, only=unseen)
    alone = {n: one.outcomes.point(TEACHER_ALONE, only=unseen) for n, one in measured.items()}
    return AnyWayChoice(
        name=name if len(measured) > 1 else "",
        policy=replace(mine.policy, **asking(chosen)),
        max_loss=max_loss,
        chosen=chosen,
        unseen=tested,
        best=most_accurate([tested, *alone.values()]),
        teacher=base.point(TEACHER_ALONE, only=unseen),
        rivals=(
            random_router(base, tested.cost, unseen),
            *_cascade(base, chosen.cost, seen, unseen),
            *_cheapest_teacher(alone),
            oracle(base, tested.cost, unseen),
        ),
    )


def check_max_bill(max_bill: Any) -> None:
    """Refuse a value that is not a share of a bill."""
    if isinstance(max_bill, bool) or not isinstance(max_bill, int | float) or max_bill <= 0:
        raise ValueError(f"max_bill must be a share above 0, such as 0.52, not {max_bill!r}")


def _points(measured: Measured, seen: Sequence[int]) -> list[OperatingPoint]:
    outcomes = measured.outcomes
    asked: list[Setting] = [*filter(None, outcomes.lengths), TEACHER_ALONE]
    points = [outcomes.point(n, only=seen) for n in (0, *asked)]
    kinds: list[Sequence[ThresholdGate]] = [[gate] for gate in measured.gates]
    kinds += [CONFIDENCE_GATES] if outcomes.tells_confidence else []
    for variants in kinds:
        gates = outcomes.gates(seen, variants)
        # A gate that never asks shows what the student's own answers give.
        gates.append(gates[0].asking_above(max(outcomes.scores(gates[0]))))
        points += [outcomes.point(n, gate, only=seen) for gate in gates for n in asked]
    return points


def _complexity(point: OperatingPoint) -> tuple[bool, bool, bool]:
    """Return what makes a way complex: answers to compare, a gate, a second model."""
    compares = point.gate is not None and point.gate.shown_as is not None
    return compares, point.gate is not None, point.length != 0


def _within(points: Sequence[OperatingPoint], limit: float) -> OperatingPoint | None:
    """Return the most accurate point within a cost."""
    affordable = [point for point in points if point.cost <= limit + _ROUNDING]
    return most_accurate(affordable) if affordable else None


def random_router(outcomes: OutcomeMatrix, cost: float, rows: Sequence[int]) -> Rival:
    """Return the result of drawing lots between student and teacher, at a price."""
    student, teacher = (outcomes.point(n, only=rows) for n in (0, TEACHER_ALONE))
    span = teacher.cost - student.cost
    part = min(1.0, max(0.0, (cost - student.cost) / span)) if span else 1.0
    accuracy = student.accuracy + part * (teacher.accuracy - student.accuracy)
    return Rival("random router", accuracy, student.cost + part * span)


def _cascade(
    outcomes: OutcomeMatrix, cost: float, seen: Sequence[int], unseen: Sequence[int]
) -> list[Rival]:
    if not outcomes.tells_confidence:
        return []
    tried = [outcomes.point(0, only=seen)]
    tried += [outcomes.point(TEACHER_ALONE, gate, only=seen) for gate in outcomes.gates(seen)]
    best = _within(tried, cost) or tried[0]
    tested = outcomes.point(best.length, best.gate, only=unseen)
    return [Rival("confidence cascade", tested.accuracy, tested.cost)]


def _cheapest_teacher(alone: Mapping[str, OperatingPoint]) -> list[Rival]:
    if len(alone) < 2:
        return []
    name, point = min(alone.items(), key=lambda pair: (pair[1].cost, -pair[1].accuracy))
    return [Rival(f"cheapest teacher-only prompt: {name}", point.accuracy, point.cost)]


def oracle(outcomes: OutcomeMatrix, cost: float, rows: Sequence[int]) -> Rival:
    """Return the result of asking only where the student is wrong and the teacher right."""
    student, teacher = (outcomes.point(n, only=rows) for n in (0, TEACHER_ALONE))
    pairs = zip(student.outcomes, teacher.outcomes, strict=True)
    helped = sorted(asked.cost - own.cost for own, asked in pairs if asked.right and not own.right)
    right, spent = student.right, student.cost * student.rows
    for extra in helped:
        if spent + extra > cost * student.rows + _ROUNDING:
            break
        right, spent = right + 1, spent + extra
    return Rival("oracle", right / student.rows, spent / student.rows)
