"""Statistics of right and wrong answers: intervals, McNemar's test, ROC areas; and busy time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_gkt.evaluation.running.records import Answer


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the Wilson score interval of a share, at 95%.

    Args:
        right: How many.
        count: Of how many.

    Returns:
        Its ends.
    """
    found: Any = _stats().binomtest(right, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two ways to answer the same rows, compared row by row.

    Attributes:
        first: Name of one.
        second: Name of the other.
        difference: Accuracy of the first less that of the second.
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        p_value: Of McNemar's exact test, two-sided: how often as large a difference would come
            from two equally good ways.
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


def paired_test(
    first: Sequence[Answer], second: Sequence[Answer], names: tuple[str, str]
) -> PairedTest:
    """Compare two ways on the rows that both have answered.

    Args:
        first: Answers of one.
        second: Answers of the other.
        names: What they are called.

    Returns:
        The comparison.
    """
    theirs = {answer.row: answer.right for answer in second}
    both = [(answer.right, theirs[answer.row]) for answer in first if answer.row in theirs]
    return mcnemar([one for one, _ in both], [other for _, other in both], names)


def mcnemar(first: Sequence[bool], second: Sequence[bool], names: tuple[str, str]) -> PairedTest:
    """Compare two ways row by row, with McNemar's exact test.

    Args:
        first: Which rows one got right.
        second: Which of the same rows the other did.
        names: What they are called.

    Returns:
        The comparison.
    """
    ahead = sum(one and not other for one, other in zip(first, second, strict=True))
    behind = sum(other and not one for one, other in zip(first, second, strict=True))
    p_value = 1.0
    if ahead + behind:
        p_value = float(_stats().binomtest(min(ahead, behind), ahead + behind, 0.5).pvalue)
    return PairedTest(
        first=names[0],
        second=names[1],
        difference=(ahead - behind) / max(1, len(first)),
        only_first=ahead,
        only_second=behind,
        p_value=p_value,
    )


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of a union of intervals.

    Args:
        spans: Their beginnings and ends.

    Returns:
        The time that at least one of them covers.
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return how often a right answer's score is above a wrong one's; ties count half.

    Args:
        scores: One for each answer.
        right: Which of them are right.

    Returns:
        The area under the ROC curve; 0.5 if all answers are right, or all wrong.
    """
    good = [score for score, is_right in zip(scores, right, strict=True) if is_right]
    bad = [score for score, is_right in zip(scores, right, strict=True) if not is_right]
    if not good or not bad:
        return 0.5
    # The method concerns its p-value only, and this one needs no long sums.
    found: Any = _stats().mannwhitneyu(good, bad, method="asymptotic")
    return float(found.statistic) / len(good) / len(bad)


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError(
            'the intervals need scipy: pip install "langchain-gkt[report]"'
        ) from error
    return stats
