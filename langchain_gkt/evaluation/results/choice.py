"""One setting for all questions, chosen on seen rows and tested on others."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_gkt.errors import share_number
from langchain_gkt.evaluation.results import cells
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
    most_accurate,
)
from langchain_gkt.gates import AgreementGate, ConfidenceGate, ThresholdGate
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.reporting.table import Table

FEWEST = 4
"""With fewer rows there are none to choose by, or none to test on."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The goal of a choice.

    Attributes:
        max_loss: Accuracy that you may give up against the best way. The cheapest such way wins.
        price_per_point: The value of a point of accuracy, in the unit of the costs. The way with
            the greatest value minus price wins. None to choose by ``max_loss``.
        share: The share of questions in which the teacher is asked. None for any.
    """

    max_loss: float = 0.02
    price_per_point: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        """Refuse invalid goals."""
        price = self.price_per_point
        if not 0 <= self.max_loss < 1:
            raise ValueError(
                f"max_loss must be a share from 0 up to 1, such as 0.02, not {self.max_loss}"
            )
        number = isinstance(price, int | float) and not isinstance(price, bool)
        if price is not None and not (number and 0 < price < float("inf")):
            raise ValueError(
                "price_per_point must be a number above 0, in the unit of the sweep's costs, not "
                f"{price!r}"
            )
        if self.share is not None:
            share_number("share", self.share)

    def best(self, points: Sequence[OperatingPoint], most: float) -> OperatingPoint:
        """Return the best point. ``most`` is the accuracy of the best way there is.

        If none comes close enough to that, the most accurate is the best.
        """
        if (price := self.price_per_point) is not None:
            return max(points, key=lambda p: (100 * p.accuracy - p.cost / price, -p.cost))
        # With a share, not every accuracy can be had.
        most = max(p.accuracy for p in points) if self.share is not None else most
        enough = [p for p in points if p.accuracy >= most - self.max_loss]
        return min(enough or [most_accurate(points)], key=lambda p: (p.cost, -p.accuracy))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The cheapest way to answer within a stated loss, and its results on unseen rows.

    Attributes:
        policy: The chain's ``guidance``.
        max_loss: Accuracy that the choice may give up.
        chosen: The chosen way, on the rows that chose it.
        unseen: The same way on the other rows.
        best: The most accurate length on the seen rows, on the unseen ones. With a gate of a kind
            of its own, the teacher alone is one of them.
    """

    policy: GuidancePolicy
    max_loss: float
    chosen: OperatingPoint
    unseen: OperatingPoint
    best: OperatingPoint

    @property
    def seen_rows(self) -> int:
        """How many rows chose it."""
        return self.chosen.rows

    @property
    def unseen_rows(self) -> int:
        """How many rows tested it."""
        return self.unseen.rows

    def __str__(self) -> str:
        """Return the choice in a few sentences."""
        low, high = self.unseen.interval
        whole = self.chosen.length == TEACHER_ALONE
        way = "the teacher's whole answer" if whole else f"{self.chosen.guidance} of guidance"
        if self.chosen.gate is not None:
            way += f" where {_gate_words(self.chosen)}"
        return (
            f"{way}: {self.unseen.accuracy:.1%} right on {self.unseen_rows} unseen rows (95% "
            f"interval {low:.1%} to {high:.1%}; {self.chosen.accuracy:.1%} on the "
            f"{self.seen_rows} it was chosen by), at {self.unseen.price} against "
            f"{self.best.price} for the best length, {self.best.guidance}, which is right on "
            f"{self.best.accuracy:.1%} of them"
        )

    def columns(self) -> dict[str, str]:
        """Return the table cells of the choice, by column."""
        return {
            "guidance": self.chosen.guidance,
            "asks below": self.chosen.asks_below,
            "seen": cells.percent(self.chosen.accuracy),
            "unseen (95%)": cells.accuracy(self.unseen),
            "best length": cells.accuracy(self.best),
            "of cost": cells.ratio(self.unseen.cost, self.best.cost),
        }


def _gate_words(point: OperatingPoint) -> str:
    if isinstance(point.gate, AgreementGate):
        return f"fewer than {point.asks_below}"
    if not isinstance(point.gate, ConfidenceGate):
        return f"{point.gate} asks"
    return (
        f"the student's confidence over its first {point.gate.probe_tokens} token(s) is below "
        f"{point.asks_below}"
    )


def shuffled(rows: Sequence[str], seed: int) -> list[int]:
    """Return the numbers of rows in a random order."""
    # By key, so that rows added later do not move all others.
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    random.Random(seed).shuffle(order)
    return order


def halves(rows: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the rows that choose, and of those that test.

    Raises:
        ValueError: If there are too few.
    """
    if len(rows) < FEWEST:
        raise ValueError(
            f"choose() needs {FEWEST} rows to have some it did not see, and there are "
            f"{len(rows)}; sweep over more"
        )
    order = shuffled(rows, seed)
    return order[: len(order) // 2], order[len(order) // 2 :]


def choose_among(
    outcomes: OutcomeMatrix, *, max_loss: float, gate: bool | ThresholdGate, seed: int
) -> Choice:
    """Choose. See `Sweep.choose`."""
    goal = Goal(max_loss=max_loss)
    seen, unseen = halves(outcomes.rows, seed)
    if gate is True and not outcomes.tells_confidence:
        raise ValueError(
            "gate=True is based on the student's confidence, which this student does not report; "
            "use a HuggingFaceStudent or gate=False"
        )
    # Where a gate of a kind of its own asks, the teacher may answer alone.
    whole = [TEACHER_ALONE] if isinstance(gate, ThresholdGate) else []
    fixed = [outcomes.point(length, only=seen) for length in outcomes.lengths]
    best = most_accurate([*fixed, *(outcomes.point(length, only=seen) for length in whole)])
    ways = [*fixed]
    if gate:
        gates = outcomes.gates(seen, CONFIDENCE_GATES if isinstance(gate, bool) else [gate])
        lengths = [length for length in (*outcomes.lengths, *whole) if length]
        ways += [outcomes.point(n, variant, only=seen) for variant in gates for n in lengths]
    chosen = goal.best(ways, best.accuracy)
    return Choice(
        policy=GuidancePolicy(**asking(chosen)),
        max_loss=max_loss,
        chosen=chosen,
        unseen=outcomes.point(chosen.length, chosen.gate, only=unseen),
        best=outcomes.point(best.length, only=unseen),
    )


def asking(chosen: OperatingPoint) -> dict[str, Any]:
    """Return the fields of a policy that answers in a way."""
    fields: dict[str, Any] = {"gate": chosen.gate}
    if isinstance(chosen.gate, ConfidenceGate):  # it has a short form
        fields = {"ask": chosen.gate.below, "probe_tokens": chosen.gate.probe_tokens}
    if chosen.length == TEACHER_ALONE:
        return {**fields, "ladder": ("all",) if chosen.gate is None else (0, "all")}
    return {**fields, "tokens": chosen.length}


def choice_tables(choices: Mapping[str, Choice], max_loss: float) -> list[Table]:
    """Return tables of the choices, by kind, and of their results on unseen rows."""
    if not choices:
        return []
    notes = [
        f"chosen on {next(iter(choices.values())).seen_rows} rows (seen), tested on the "
        "others (unseen)",
        "best length: the most accurate on the seen rows, with its accuracy on the unseen ones",
        "of cost: share of the cost of that length",
    ]
    if whole := [k for k, choice in choices.items() if choice.best.length == TEACHER_ALONE]:
        notes.append(
            f"{', '.join(whole)}: against the teacher alone, which was the most accurate; the "
            "most accurate is taken if none comes so near"
        )
    lines = [{"kind": kind, **choice.columns()} for kind, choice in choices.items()]
    title = f"The cheapest within {100 * max_loss:g} points of the best length"
    return [Table.of(lines, title=title, notes=notes)]
