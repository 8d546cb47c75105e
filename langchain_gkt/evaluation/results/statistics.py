"""Statistics of answers: intervals, McNemar's test, ROC areas, ratios of sums. And busy time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_gkt.reporting.html import missing_extra


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the Wilson score interval of a share, at 95%."""
    interval: Any = _stats().binomtest(right, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two ways to answer the same rows, compared row by row.

    Attributes:
        first: Name of the first.
        second: Name of the second.
        difference: Accuracy of the first minus that of the second.
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        p_value: Of McNemar's exact test, two-sided: how often two equally good ways would differ by
            as much.
    """

    first: str
    second: str
    difference: float
    only_first: int
    only_second: int
    p_value: float

    def __str__(self) -> str:
        """Return the result in a sentence."""
        return (
            f"{self.first} against {self.second}: {self.difference * 100:+.1f} points; right "
            f"alone {self.only_first} and {self.only_second} times; McNemar p = {self.p_value:.2g}"
        )


def mcnemar(first: Sequence[bool], second: Sequence[bool], names: tuple[str, str]) -> PairedTest:
    """Compare which of the same rows two ways got right, with McNemar's exact test."""
    pairs = list(zip(first, second, strict=True))
    ahead = sum(bool(mine and not theirs) for mine, theirs in pairs)
    behind = sum(bool(theirs and not mine) for mine, theirs in pairs)
    p_value = 1.0
    if ahead + behind:
        p_value = float(_stats().binomtest(min(ahead, behind), ahead + behind, 0.5).pvalue)
    return PairedTest(
        first=names[0],
        second=names[1],
        difference=(ahead - behind) / max(1, len(pairs)),
        only_first=ahead,
        only_second=behind,
        p_value=p_value,
    )


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of sums.

    Attributes:
        value: Sum of the first over sum of the second. Not a mean of ratios.
        interval: Its bootstrap interval over questions. None for a single question.
    """

    value: float
    interval: tuple[float, float] | None


def bootstrap_ratio(
    pairs: Sequence[tuple[float, float]], *, confidence: float = 0.95, seed: int = 0
) -> Ratio:
    """Divide two sums over the same questions."""
    value = sum(first for first, _ in pairs) / sum(second for _, second in pairs)
    if len(pairs) < 2:
        return Ratio(value=value, interval=None)

    def ratio(first: Any, second: Any, axis: int = -1) -> Any:
        return first.sum(axis=axis) / second.sum(axis=axis)

    columns = list(zip(*pairs, strict=True))
    low, high = bootstrap(columns, ratio, seed=seed, confidence_level=confidence)
    return Ratio(value=value, interval=(float(low), float(high)))


def bootstrap(
    columns: Sequence[Any], statistic: Callable[..., Any], *, seed: int, **options: Any
) -> tuple[Any, Any]:
    """Return the bootstrap interval of a statistic over rows, from scipy."""
    # Percentiles, because BCa is undefined if all rows are alike.
    options = {"paired": True, "method": "percentile", "rng": seed, **options}
    interval = _stats().bootstrap(tuple(columns), statistic, **options).confidence_interval
    return interval.low, interval.high


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the time that at least one of several intervals (begin and end) covers."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return how often a right answer's score is above a wrong one's: the area under the ROC curve.

    Ties count half. It is 0.5 if all answers are right, or all wrong.
    """
    good = [score for score, is_right in zip(scores, right, strict=True) if is_right]
    bad = [score for score, is_right in zip(scores, right, strict=True) if not is_right]
    if not good or not bad:
        return 0.5
    # The method affects only the p-value, and this one needs no long sums.
    test: Any = _stats().mannwhitneyu(good, bad, method="asymptotic")
    return float(test.statistic) / len(good) / len(bad)


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise missing_extra("scipy") from error
    return stats
