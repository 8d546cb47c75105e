"""The ratio of two sums over the same questions, with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_gkt.reporting.html import missing_extra


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of sums.

    Attributes:
        value: Sum of the first over sum of the second; not a mean of ratios.
        interval: Its bootstrap interval over questions; None for a single question.
    """

    value: float
    interval: tuple[float, float] | None


def bootstrap_ratio(
    pairs: Sequence[tuple[float, float]], *, confidence: float = 0.95, seed: int = 0
) -> Ratio:
    """Divide two sums over the same questions.

    Args:
        pairs: What each question took in the first way and in the second.
        confidence: Level of the interval.
        seed: Seed of the bootstrap.

    Returns:
        The ratio with its interval.

    Raises:
        ImportError: If scipy is missing.
    """
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        raise missing_extra("scipy") from error
    value = sum(first for first, _ in pairs) / sum(second for _, second in pairs)
    if len(pairs) < 2:
        return Ratio(value=value, interval=None)
    # Percentiles, because BCa is undefined if all questions cost alike.
    found = bootstrap(
        tuple(zip(*pairs, strict=True)),
        lambda first, second, axis=-1: first.sum(axis=axis) / second.sum(axis=axis),
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return Ratio(value=value, interval=(float(found.low), float(found.high)))
