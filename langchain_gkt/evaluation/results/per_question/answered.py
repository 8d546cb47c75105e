"""Rows answered in one way, and the random mix of fixed ways that a chooser must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_gkt.evaluation.results.frontier import OperatingPoint, OutcomeMatrix
from langchain_gkt.evaluation.results.statistics import wilson

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
        cls, kind: str, guidance: str, ways: OutcomeMatrix, lengths: Sequence[tuple[int, int]]
    ) -> Answered:
        """Look rows up.

        Args:
            kind: How it was decided.
            guidance: How much, in words.
            ways: The outcomes.
            lengths: Numbers of rows, each with the length it is answered with.
        """
        found = [(ways.outcomes[length], row, length) for row, length in lengths]
        return cls(
            kind=kind,
            guidance=guidance,
            right=tuple(outcome.right[row] for outcome, row, _ in found),
            cost=tuple(outcome.cost[row] for outcome, row, _ in found),
            asked=tuple(length != 0 for _, _, length in found),
        )

    @classmethod
    def joined(cls, parts: Sequence[Answered]) -> Answered:
        """Join the parts of one kind over different rows."""
        words = list(dict.fromkeys(part.guidance for part in parts))
        return cls(
            kind=parts[0].kind,
            guidance=words[0] if len(words) == 1 else "varies",
            right=tuple(one for part in parts for one in part.right),
            cost=tuple(one for part in parts for one in part.cost),
            asked=tuple(one for part in parts for one in part.asked),
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

    def point(self, ways: OutcomeMatrix, length: int) -> OperatingPoint:
        """Return its sums.

        Args:
            ways: The outcomes that it was looked up in.
            length: The guidance length to name.
        """
        return OperatingPoint(
            length=length,
            right=sum(self.right),
            rows=len(self.right),
            cost=self.mean_cost,
            price=ways.written(self.mean_cost),
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
    """Compare a chooser with the random mix of fixed ways.

    Args:
        chooser: What it gave.
        fixed: The fixed ways that may be mixed, on the same rows.
        seed: Seed of the bootstrap.

    Returns:
        The comparison.

    Raises:
        ImportError: If scipy is missing.
    """
    import numpy as np

    ways = [chooser, *fixed]
    data = [*(np.array(w.right, float) for w in ways), *(np.array(w.cost, float) for w in ways)]

    def compare(*columns: Any) -> tuple[float, float]:
        right, cost = np.split(np.array([column.mean() for column in columns]), 2)
        # Cheapest first, each more accurate than those before: what a mix may be drawn from.
        order = sorted(range(1, len(ways)), key=lambda i: (cost[i], -right[i]))
        kept = order[:1]
        for i in order[1:]:
            if right[i] > right[kept[-1]]:
                kept.append(i)
        paid = float(np.interp(right[0], right[kept], cost[kept]))
        bill = float(cost[0]) / paid if paid else float(cost[0] > 0)
        return bill, float(right[0] - np.interp(cost[0], cost[kept], right[kept]))

    bill, gain = compare(*data)
    low, high = _bootstrap(data, compare, seed)
    reachable = chooser.accuracy <= max(one.accuracy for one in fixed)
    return RandomMix(
        cost=chooser.mean_cost / bill if reachable and bill else None,
        bill=bill,
        bill_interval=(low[0], high[0]),
        gain=gain,
        gain_interval=(low[1], high[1]),
    )


def _bootstrap(data: Sequence[Any], statistic: Any, seed: int) -> tuple[Any, Any]:
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        raise ImportError(
            'the intervals need scipy: pip install "langchain-gkt[report]"'
        ) from error
    # Percentiles, as for the ratio of costs: BCa is undefined if all rows are alike.
    found = bootstrap(
        tuple(data),
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return [float(one) for one in found.low], [float(one) for one in found.high]
