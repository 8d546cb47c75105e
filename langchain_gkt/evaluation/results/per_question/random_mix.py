"""Rows answered in one way, and the random mix of fixed ways that a chooser must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from langchain_gkt.evaluation.results.outcomes import OperatingPoint, OutcomeMatrix, Setting
from langchain_gkt.evaluation.results.statistics import bootstrap, wilson
from langchain_gkt.gates import Gate

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Rows answered in one way.

    Attributes:
        kind: How it is decided how much the teacher writes.
        guidance: How much that is, in words.
        right: Which rows are right.
        cost: Price of each.
        asked: In which the teacher was asked.
    """

    kind: str
    guidance: str
    right: tuple[bool, ...]
    cost: tuple[float, ...]
    asked: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        kind: str,
        guidance: str,
        outcomes: OutcomeMatrix,
        way: tuple[Setting, Gate | None],
        rows: Sequence[int],
    ) -> Answered:
        """Look rows up, by their numbers, answered in a setting where a gate asks."""
        right, cost, asked = outcomes.answered(*way, rows)
        return cls(
            kind=kind,
            guidance=guidance,
            right=tuple(right),
            cost=tuple(cost),
            asked=tuple(asked),
        )

    @classmethod
    def joined(cls, parts: Sequence[Answered]) -> Answered:
        """Join the parts of one kind over different rows."""
        words = {part.guidance for part in parts}
        return cls(
            kind=parts[0].kind,
            guidance=words.pop() if len(words) == 1 else "varies",
            right=tuple(chain.from_iterable(part.right for part in parts)),
            cost=tuple(chain.from_iterable(part.cost for part in parts)),
            asked=tuple(chain.from_iterable(part.asked for part in parts)),
        )

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.right)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the accuracy, at 95%."""
        return wilson(sum(self.right), len(self.right))

    @property
    def mean_cost(self) -> float:
        """Mean price of an answer."""
        return sum(self.cost) / len(self.cost)

    @property
    def share_asked(self) -> float:
        """Share of rows in which the teacher was asked."""
        return sum(self.asked) / len(self.asked)

    def point(self, outcomes: OutcomeMatrix, length: int) -> OperatingPoint:
        """Return its sums, named by a guidance length."""
        return OperatingPoint(
            length=length,
            right=sum(self.right),
            rows=len(self.right),
            cost=self.mean_cost,
            price=outcomes.written(self.mean_cost),
            asked=self.share_asked,
            words=self.guidance,
        )


@dataclass(frozen=True, kw_only=True)
class RandomMix:
    """What a router that draws lots between fixed ways would give, against a chooser.

    Of the ways that no mix of others beats, it draws between the two that give the chooser's
    accuracy for the least money, and for `gain` between those that cost what the chooser costs.
    The intervals are bootstraps over rows, at 95%.

    Attributes:
        cost: Mean price of an answer at the chooser's accuracy; None if no mix is so accurate.
        bill: The chooser's price over that one; if no mix is so accurate, over the price of the
            most accurate.
        bill_interval: Its interval.
        gain: The chooser's accuracy less that of a mix that costs the same.
        gain_interval: Its interval.
    """

    cost: float | None
    bill: float
    bill_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]

    @property
    def is_beaten(self) -> bool:
        """Whether the chooser is ahead by more than chance explains."""
        return self.gain_interval[0] > 0


def random_mix(chooser: Answered, fixed: Sequence[Answered], *, seed: int = 0) -> RandomMix:
    """Compare a chooser with the random mix of fixed ways on the same rows.

    Raises:
        ImportError: If scipy is missing.
    """
    import numpy as np

    every = [chooser, *fixed]
    data = [*(np.array(w.right, float) for w in every), *(np.array(w.cost, float) for w in every)]

    def compare(*columns: Any) -> tuple[float, float]:
        right, cost = np.split(np.array([column.mean() for column in columns]), 2)
        # Cheapest first, each more accurate than those before: what a mix may be drawn from.
        order = sorted(range(1, len(every)), key=lambda i: (cost[i], -right[i]))
        kept = order[:1]
        for i in order[1:]:
            if right[i] > right[kept[-1]]:
                kept.append(i)
        paid = float(np.interp(right[0], right[kept], cost[kept]))
        bill = float(cost[0]) / paid if paid else float(cost[0] > 0)
        return bill, float(right[0] - np.interp(cost[0], cost[kept], right[kept]))

    bill, gain = compare(*data)
    options = {"seed": seed, "vectorized": False, "n_resamples": _RESAMPLES}
    bills, gains = zip(*bootstrap(data, compare, **options), strict=True)
    reachable = chooser.accuracy <= max(way.accuracy for way in fixed)
    return RandomMix(
        cost=chooser.mean_cost / bill if reachable and bill else None,
        bill=bill,
        bill_interval=(float(bills[0]), float(bills[1])),
        gain=gain,
        gain_interval=(float(gains[0]), float(gains[1])),
    )
