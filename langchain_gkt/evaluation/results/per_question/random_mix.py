"""The random mix of fixed ways that a chooser must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_gkt.evaluation.results.outcomes import OperatingPoint
from langchain_gkt.evaluation.results.statistics import bootstrap

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class RandomMix:
    """A router that draws lots between fixed ways, against a chooser.

    It uses the ways that no mix of others beats. It draws between the two that give the chooser's
    accuracy for the least money. For `gain` it draws between the two that cost what the chooser
    costs. The intervals are bootstraps over rows, at 95%.

    Attributes:
        cost: Mean price of an answer at the chooser's accuracy. None if no mix is so accurate.
        bill: The chooser's price over that one. If no mix is so accurate, over the price of the
            most accurate mix.
        bill_interval: Its interval.
        gain: The chooser's accuracy minus that of a mix with the same cost.
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


def random_mix(chooser: OperatingPoint, fixed: Sequence[OperatingPoint]) -> RandomMix:
    """Compare a chooser with the random mix of fixed ways on the same rows."""
    import numpy as np

    ways = [chooser, *fixed]
    data = [np.array(way.rights, float) for way in ways]
    data += [np.array(way.costs, float) for way in ways]

    def mix(right: Any, cost: Any) -> tuple[float, float]:
        # The ways to mix: cheapest first, each more accurate than those before.
        order = sorted(range(1, len(ways)), key=lambda i: (cost[i], -right[i]))
        kept = order[:1]
        for i in order[1:]:
            if right[i] > right[kept[-1]]:
                kept.append(i)
        paid = float(np.interp(right[0], right[kept], cost[kept]))
        bill = float(cost[0]) / paid if paid else float(cost[0] > 0)
        return bill, float(right[0] - np.interp(cost[0], cost[kept], right[kept]))

    def compare(*columns: Any, axis: int = -1) -> Any:
        # One mean for all resamples, because a mean for each takes most of the time.
        means = np.array([column.mean(axis=axis) for column in columns])
        rows = means.reshape(2, len(ways), -1).transpose(2, 0, 1)
        return np.array([mix(*row) for row in rows]).T.reshape(2, *means.shape[1:])

    bill, gain = compare(*data)
    bills, gains = zip(
        *bootstrap(data, compare, seed=0, vectorized=True, n_resamples=_RESAMPLES), strict=True
    )
    reachable = chooser.accuracy <= max(way.accuracy for way in fixed)
    return RandomMix(
        cost=chooser.cost / float(bill) if reachable and bill else None,
        bill=float(bill),
        bill_interval=(float(bills[0]), float(bills[1])),
        gain=float(gain),
        gain_interval=(float(gains[0]), float(gains[1])),
    )
