"""One setting chosen for all questions, on rows it may see, and tested on others."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.base import percent, share
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
)
from langchain_gkt.gates import AgreementGate, ConfidenceGate, ThresholdGate
from langchain_gkt.guidance import Cut, GuidancePolicy
from langchain_gkt.reporting.table import Table

FEWEST = 4
"""With fewer rows there are none to choose by, or none to test on."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The cheapest way to answer within a stated loss, and what it gives on unseen rows.

    Attributes:
        policy: What a chain takes as ``guidance``.
        max_loss: Accuracy that could be given up.
        chosen: The way that was chosen, on the rows it was chosen by.
        unseen: The same way on the other rows.
        best: The length that was most accurate on the seen rows, on the unseen ones; with a gate
            of a kind of its own, the teacher alone is one of them.
        seen_rows: How many rows it was chosen by.
        unseen_rows: How many it was tested on.
    """

    policy: GuidancePolicy
    max_loss: float
    chosen: OperatingPoint
    unseen: OperatingPoint
    best: OperatingPoint
    seen_rows: int
    unseen_rows: int

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
    """Return the numbers of the rows that choose, and of those that test."""
    order = shuffled(rows, seed)
    return order[: len(order) // 2], order[len(order) // 2 :]


def check_max_loss(max_loss: float) -> None:
    """Refuse what is no share below 1."""
    if not 0 <= max_loss < 1:
        raise ValueError(f"max_loss must be a share from 0 up to 1, such as 0.02, not {max_loss}")


def choose_among(
    outcomes: OutcomeMatrix,
    *,
    max_loss: float,
    gate: bool | ThresholdGate,
    seed: int,
    cut: Cut | Any = "word",
) -> Choice:
    """Choose; see `Sweep.choose`.

    Args:
        outcomes: The outcomes.
        max_loss: Accuracy that may be given up.
        gate: Whether the teacher may be left unasked, or by which gate.
        seed: Seed of the split into seen and unseen rows.
        cut: Where the chain cuts guidance.

    Raises:
        ValueError: If it cannot be made; see `Sweep.choose`.
    """
    check_max_loss(max_loss)
    if len(outcomes.rows) < FEWEST:
        raise ValueError(
            f"choose() needs {FEWEST} rows to have some it did not see, and there are "
            f"{len(outcomes.rows)}; sweep over more"
        )
    if gate is True and not outcomes.tells_confidence:
        raise ValueError(
            "gate=True is based on the student's confidence, which this student does not report; "
            "use a HuggingFaceStudent or gate=False"
        )
    seen, unseen = halves(outcomes.rows, seed)
    at = partial(outcomes.point, only=seen)
    fixed = [at(length) for length in outcomes.lengths]
    whole = isinstance(gate, ThresholdGate)  # the teacher may answer alone where it asks
    ways = [*fixed, at(TEACHER_ALONE)] if whole else fixed
    best = max(ways, key=lambda p: (p.accuracy, -p.cost))
    candidates = fixed
    if gate:
        gates = outcomes.gates(seen, CONFIDENCE_GATES if isinstance(gate, bool) else [gate])
        lengths = [length for length in outcomes.lengths if length]
        lengths += [TEACHER_ALONE] if whole else []
        candidates = fixed + [at(length, one) for one in gates for length in lengths]
    enough = [p for p in candidates if p.accuracy >= best.accuracy - max_loss]
    # No gate may keep what the teacher alone reaches.
    enough = enough or [max(candidates, key=lambda p: (p.accuracy, -p.cost))]
    chosen = min(enough, key=lambda p: (p.cost, -p.accuracy))
    asking: dict[str, Any] = {"gate": chosen.gate}
    if isinstance(chosen.gate, ConfidenceGate):  # it has a short form
        asking = {"ask": chosen.gate.below, "probe_tokens": chosen.gate.probe_tokens}
    if chosen.length == TEACHER_ALONE:
        asking["ladder"] = (0, "all")
    else:
        asking["tokens"] = chosen.length
    return Choice(
        policy=GuidancePolicy(cut=cut, **asking),
        max_loss=max_loss,
        chosen=chosen,
        unseen=outcomes.point(chosen.length, chosen.gate, only=unseen),
        best=outcomes.point(best.length, only=unseen),
        seen_rows=len(seen),
        unseen_rows=len(unseen),
    )


def choice_tables(choices: Mapping[str, Choice], max_loss: float) -> list[Table]:
    """Say what was chosen, by kind, and what it gives on unseen rows.

    Returns:
        One table; none if there is no choice.
    """
    if not choices:
        return []
    named = ", ".join(k for k, one in choices.items() if one.best.length == TEACHER_ALONE)
    whole = [
        f"{named}: against the teacher alone, which was the most accurate; the most accurate is "
        "taken if none comes so near"
    ]
    whole = whole if named else []
    return [
        Table(
            title=f"The cheapest within {100 * max_loss:g} points of the best length",
            head=[
                *("kind", "guidance", "asks below", "seen", "unseen (95%)"),
                *("best length", "of cost"),
            ],
            rows=[
                [
                    kind,
                    one.chosen.guidance,
                    one.chosen.asks_below,
                    percent(one.chosen.accuracy),
                    share(one.unseen.accuracy, one.unseen.interval),
                    share(one.best.accuracy, one.best.interval),
                    percent(one.unseen.cost / one.best.cost) if one.best.cost else "?",
                ]
                for kind, one in choices.items()
            ],
            notes=[
                f"chosen on {next(iter(choices.values())).seen_rows} rows (seen), tested on the "
                "others (unseen); best length: what was most accurate on the seen rows, on the "
                "unseen ones; of cost: of that length's",
                *whole,
            ],
        )
    ]
