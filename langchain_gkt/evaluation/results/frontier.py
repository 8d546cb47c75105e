"""Choosing how much guidance to ask for, and when: frontiers, and a choice that is tested."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from langchain_gkt.evaluation.results.statistics import auc, wilson
from langchain_gkt.evaluation.running.records import Answer
from langchain_gkt.gates.confidence import confidence
from langchain_gkt.guidance import Cut, GuidancePolicy

PROBES = (1, 2, 4, 8, 16, 32)
"""Numbers of first tokens that confidence is tried over."""
_QUANTILES = tuple(i / 20 for i in range(1, 20))
_FEWEST = 4
TEACHER_ALONE = -1
"""The length that stands for a teacher that answers alone."""

SHOWN_POINTS = 8
"""How many points of each kind a table of the frontier shows."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A guidance length, with or without a gate, and what it gives.

    Attributes:
        length: Guidance tokens; 0 for the student alone, `TEACHER_ALONE` for the teacher alone.
        ask: The confidence below which the teacher is asked; None for always.
        probe_tokens: How many tokens the confidence is taken over.
        right: How many answers are right.
        rows: Of how many.
        cost: Price of a thousand answers in US dollars, or teacher tokens of one.
        price: The same, written out.
        asked: Share of questions in which the teacher is asked.
        words: How much the teacher writes, if it is not the same for all questions.
    """

    length: int
    ask: float | None = None
    probe_tokens: int = 1
    right: int
    rows: int
    cost: float
    price: str
    asked: float
    words: str = ""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the accuracy, at 95%."""
        return wilson(self.right, self.rows)

    @property
    def guidance(self) -> str:
        """How much the teacher writes, in words."""
        names = {0: "none", TEACHER_ALONE: "whole answer"}
        return self.words or names.get(self.length, f"{self.length} tokens")

    @property
    def gate(self) -> str:
        """Below which confidence it is asked, in words."""
        return "-" if self.ask is None else f"{self.ask:.6f}"


@dataclass(frozen=True, kw_only=True)
class LengthOutcomes:
    """Which rows one guidance length gets right, and at what price.

    Attributes:
        right: Row by row.
        cost: Likewise.
    """

    right: Sequence[bool]
    cost: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class OutcomeMatrix:
    """The same rows answered with every guidance length: a matrix of outcomes by length and row.

    Attributes:
        rows: Their keys.
        outcomes: By guidance length, with 0 and `TEACHER_ALONE`.
        probabilities: What the student gives its own first tokens, row by row; or None.
        priced: Whether the costs are US dollars; else they are the teacher's tokens.
        entropies: Of the distributions that the same tokens were chosen from; or None.
        questions: What is asked, row by row; empty if unknown.
    """

    rows: Sequence[str]
    outcomes: Mapping[int, LengthOutcomes]
    probabilities: Sequence[Sequence[float]] | None
    priced: bool
    entropies: Sequence[Sequence[float]] | None = None
    questions: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        teacher: Sequence[Answer],
        student: Sequence[Answer],
        guided: Mapping[int, Sequence[Answer]],
        questions: Mapping[str, str] | None = None,
    ) -> OutcomeMatrix:
        """Make it from answers.

        Args:
            teacher: The teacher's whole answers.
            student: The student's own, to the same rows in the same order.
            guided: Guided answers by length, likewise.
            questions: What is asked, by row.

        Returns:
            The matrix.
        """
        every = {0: student, **guided, TEACHER_ALONE: teacher}
        priced = all(a.cost is not None for answers in every.values() for a in answers)

        def price(answer: Answer) -> float:
            if priced and answer.cost is not None:
                return float(answer.cost) * 1000
            return answer.teacher.prompt_tokens + answer.teacher.completion_tokens

        probed = [answer.probabilities for answer in student]
        entropies = [answer.entropies for answer in student]
        return cls(
            rows=[answer.row for answer in student],
            outcomes={
                length: LengthOutcomes(
                    right=[a.right for a in found], cost=[price(a) for a in found]
                )
                for length, found in every.items()
            },
            probabilities=None if None in probed else [p for p in probed if p is not None],
            priced=priced,
            entropies=None if None in entropies else [e for e in entropies if e is not None],
            questions=[questions[answer.row] for answer in student] if questions else (),
        )

    @property
    def tells_confidence(self) -> bool:
        """Whether the student reported how sure it was."""
        return self.probabilities is not None

    @property
    def price_name(self) -> str:
        """What costs are counted in."""
        return "$ per 1,000 answers" if self.priced else "teacher tokens per answer"

    def written(self, cost: float) -> str:
        """Write a price out."""
        return f"{cost:.4f}" if self.priced else f"{cost:.1f}"

    @property
    def lengths(self) -> list[int]:
        """The guidance lengths, 0 included."""
        return [length for length in self.outcomes if length != TEACHER_ALONE]

    @cached_property
    def confidences(self) -> dict[int, list[float]]:
        """The student's confidence row by row, by the number of tokens it is taken over."""
        known = self.probabilities or ()
        return {tokens: [confidence(p[:tokens]) for p in known] for tokens in PROBES}

    def point(
        self,
        length: int,
        ask: float | None = None,
        probe_tokens: int = 1,
        *,
        only: Sequence[int] | None = None,
    ) -> OperatingPoint:
        """Work out what a length, with or without a gate, gives.

        Args:
            length: Guidance tokens, 0 or `TEACHER_ALONE`.
            ask: The confidence below which the teacher is asked; None for always.
            probe_tokens: How many tokens the confidence is taken over.
            only: Numbers of the rows to look at; None for all.

        Returns:
            The point.
        """
        rows = range(len(self.rows)) if only is None else only
        right, cost, asked = self._outcomes_of(length, ask, probe_tokens, rows)
        count, mean = len(rows), sum(cost) / len(rows)
        return OperatingPoint(
            length=length,
            ask=ask,
            probe_tokens=probe_tokens,
            right=sum(right),
            rows=count,
            cost=mean,
            price=self.written(mean),
            asked=asked / count,
        )

    def _outcomes_of(
        self, length: int, ask: float | None, probe_tokens: int, rows: Iterable[int]
    ) -> tuple[list[bool], list[float], int]:
        right, cost, asked = [], [], 0
        for row in rows:
            asks = self.asks(row, length, ask, probe_tokens)
            outcome = self.outcomes[length if asks else 0]
            right.append(outcome.right[row])
            cost.append(outcome.cost[row])
            asked += asks
        return right, cost, asked

    def asks(self, row: int, length: int, ask: float | None, probe_tokens: int) -> bool:
        """Say whether the teacher is asked in one row; the arguments are those of `point`."""
        return length != 0 and (ask is None or self.confidences[probe_tokens][row] < ask)

    def gates(self, rows: Sequence[int]) -> tuple[int, list[float]]:
        """Find over how many tokens to measure confidence, and which thresholds to try.

        One number of tokens is used for all thresholds: with more to choose from, a choice
        would fit the rows it has seen and no others.

        Args:
            rows: Numbers of the rows to go by.

        Returns:
            The number of first tokens whose confidence best tells the student's right answers
            from its wrong ones, and thresholds that divide the rows into twentieths.
        """
        right = [self.outcomes[0].right[row] for row in rows]
        best = max(
            PROBES,
            key=lambda k: auc([self.confidences[k][row] for row in rows], right) - k * 1e-9,
        )
        known = sorted(self.confidences[best][row] for row in rows)
        return best, sorted({known[int(q * len(known))] for q in _QUANTILES})


def frontiers(ways: OutcomeMatrix) -> dict[str, list[OperatingPoint]]:
    """Return each kind's points that no cheaper one of the kind beats; see `Sweep.frontiers`.

    Args:
        ways: The outcomes.

    Returns:
        Points by kind, the cheapest first.
    """
    rows = range(len(ways.rows))
    found = {
        "student only": [ways.point(0)],
        "fixed length": _unbeaten([ways.point(n) for n in ways.lengths if n]),
    }
    if ways.tells_confidence:
        probe, thresholds = ways.gates(rows)
        found["gated"] = _unbeaten([ways.point(TEACHER_ALONE, ask, probe) for ask in thresholds])
        found["both"] = _unbeaten(
            [ways.point(n, ask, probe) for n in ways.lengths if n for ask in thresholds]
        )
    return {**found, "teacher only": [ways.point(TEACHER_ALONE)]}


def _unbeaten(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Keep the points that are more accurate than every cheaper one."""
    found: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The cheapest way to answer within a stated loss, and what it gives on unseen rows.

    Attributes:
        policy: What a chain takes as ``guidance``.
        max_loss: Accuracy that could be given up.
        chosen: The way that was chosen, on the rows it was chosen by.
        unseen: The same way on the other rows.
        best: The length that was most accurate on the seen rows, on the unseen ones.
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
        way = f"{self.chosen.guidance} of guidance"
        if self.chosen.ask is not None:
            way += (
                f" where the student's confidence over its first {self.chosen.probe_tokens} "
                f"token(s) is below {self.chosen.gate}"
            )
        return (
            f"{way}: {self.unseen.accuracy:.1%} right on {self.unseen_rows} unseen rows (95% "
            f"interval {low:.1%} to {high:.1%}; {self.chosen.accuracy:.1%} on the "
            f"{self.seen_rows} it was chosen by), at {self.unseen.price} against "
            f"{self.best.price} for the best length, {self.best.guidance}, which is right on "
            f"{self.best.accuracy:.1%} of them"
        )


def halves(rows: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Split rows into those that choose and those that test.

    Args:
        rows: Their keys.
        seed: Seed of the split.

    Returns:
        Numbers of the rows of both halves.
    """
    # By key, so that rows added later do not move all others.
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    random.Random(seed).shuffle(order)
    return order[: len(order) // 2], order[len(order) // 2 :]


def choose_among(
    ways: OutcomeMatrix, *, max_loss: float, gate: bool, seed: int, cut: Cut | Any = "word"
) -> Choice:
    """Choose; see `Sweep.choose`.

    Args:
        ways: The outcomes.
        max_loss: Accuracy that may be given up.
        gate: Whether the teacher may be left unasked.
        seed: Seed of the split into seen and unseen rows.
        cut: Where the chain cuts guidance.

    Returns:
        The choice.

    Raises:
        ValueError: If it cannot be made; see `Sweep.choose`.
    """
    if not 0 <= max_loss < 1:
        raise ValueError(f"max_loss must be a share from 0 up to 1, such as 0.02, not {max_loss}")
    if len(ways.rows) < _FEWEST:
        raise ValueError(
            f"choose() needs {_FEWEST} rows to have some it did not see, and there are "
            f"{len(ways.rows)}; sweep over more"
        )
    if gate and not ways.tells_confidence:
        raise ValueError(
            "gate=True goes by the student's confidence, which this student does not tell; use a "
            "HuggingFaceStudent or gate=False"
        )
    seen, unseen = halves(ways.rows, seed)
    at = partial(ways.point, only=seen)
    fixed = [at(length) for length in ways.lengths]
    best = max(fixed, key=lambda p: (p.accuracy, -p.cost))
    candidates = fixed
    if gate:
        probe, thresholds = ways.gates(seen)
        candidates = fixed + [
            at(length, ask, probe) for ask in thresholds for length in ways.lengths if length
        ]
    enough = [p for p in candidates if p.accuracy >= best.accuracy - max_loss]
    chosen = min(enough, key=lambda p: (p.cost, -p.accuracy))
    return Choice(
        policy=GuidancePolicy(
            tokens=chosen.length,
            cut=cut,
            ask="always" if chosen.ask is None else chosen.ask,
            probe_tokens=chosen.probe_tokens,
        ),
        max_loss=max_loss,
        chosen=chosen,
        unseen=ways.point(chosen.length, chosen.ask, chosen.probe_tokens, only=unseen),
        best=ways.point(best.length, only=unseen),
        seen_rows=len(seen),
        unseen_rows=len(unseen),
    )


def thinned(points: Sequence[OperatingPoint]) -> Sequence[OperatingPoint]:
    """Return `SHOWN_POINTS` of many points, the first and the last among them."""
    if len(points) <= SHOWN_POINTS:
        return points
    last = SHOWN_POINTS - 1
    return [points[round(i * (len(points) - 1) / last)] for i in range(SHOWN_POINTS)]
