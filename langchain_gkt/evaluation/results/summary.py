"""Sums and statistics over answers: accuracy with its interval, tokens, money, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

from langchain_gkt.evaluation.running.records import Answer, Part


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one way to answer came to, over all its rows.

    Attributes:
        mode: ``teacher``, ``student`` or ``guided``.
        length: Most guidance tokens; None in the other modes.
        rows: How many answers.
        accuracy: Share of them that the main metric calls right.
        interval: Wilson interval of the accuracy, at 95%.
        metrics: The same share by the other metrics.
        unparsed: Share of answers in which the main metric found none; they count as wrong.
        leaked: Share of rows whose guidance alone contains the answer.
        asked: Share of rows in which the teacher was asked.
        fallbacks: Answers that had to do without guidance.
        teacher: Sums of the teacher's part.
        student: Sums of the student's part.
        wall_seconds: Time in which at least one of the answers was in the making.
        seconds: Median time of an answer.
        first_token_seconds: Median time to an answer's first text; None where not measured.
    """

    mode: str
    length: int | None
    rows: int
    accuracy: float
    interval: tuple[float, float]
    metrics: dict[str, float]
    unparsed: float
    leaked: float
    asked: float
    fallbacks: int
    teacher: Part
    student: Part
    wall_seconds: float
    seconds: float
    first_token_seconds: float | None

    @property
    def cost(self) -> Decimal | None:
        """US dollars of both models, or None where they are unknown."""
        teacher, student = self.teacher.cost, self.student.cost
        return None if teacher is None or student is None else teacher + student

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens of both models over the wall time."""
        tokens = self.teacher.completion_tokens + self.student.completion_tokens
        return tokens / self.wall_seconds if self.wall_seconds else 0.0


def summarise(answers: Sequence[Answer]) -> Summary:
    """Sum up answers of one mode and length.

    Args:
        answers: One for each row, at least one.

    Returns:
        The sums.
    """
    count, right = len(answers), sum(answer.right for answer in answers)
    first = [a.first_token_seconds for a in answers if a.first_token_seconds is not None]
    others = [name for name in answers[0].verdicts if name != "answer"]
    return Summary(
        mode=answers[0].mode,
        length=answers[0].length,
        rows=count,
        accuracy=right / count,
        interval=wilson(right, count),
        metrics={name: sum(a.verdicts[name] is True for a in answers) / count for name in others},
        unparsed=sum(a.verdicts["answer"] is None for a in answers) / count,
        leaked=sum(a.leaked for a in answers) / count,
        asked=sum(a.teacher.calls > 0 for a in answers) / count,
        fallbacks=sum(a.fallback is not None for a in answers),
        teacher=add_parts([a.teacher for a in answers]),
        student=add_parts([a.student for a in answers]),
        wall_seconds=covered([(a.started, a.started + a.seconds) for a in answers]),
        seconds=median(a.seconds for a in answers),
        first_token_seconds=median(first) if first else None,
    )


def add_parts(parts: Sequence[Part]) -> Part:
    """Add up; money that is unknown for one is unknown for all.

    Args:
        parts: The parts.

    Returns:
        Their sums; the time to the first token is the mean of those that have one.
    """
    first = [p.first_token_seconds for p in parts if p.first_token_seconds is not None]

    def money(costs: Sequence[str | None]) -> str | None:
        known = [Decimal(cost) for cost in costs if cost is not None]
        return str(sum(known, Decimal(0))) if len(known) == len(costs) else None

    return Part(
        calls=sum(p.calls for p in parts),
        prompt_tokens=sum(p.prompt_tokens for p in parts),
        completion_tokens=sum(p.completion_tokens for p in parts),
        prompt_cost=money([p.prompt_cost for p in parts]),
        completion_cost=money([p.completion_cost for p in parts]),
        seconds=sum(p.seconds for p in parts),
        first_token_seconds=sum(first) / len(first) if first else None,
        unreported=sum(p.unreported for p in parts),
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the Wilson score interval of a share, at 95%.

    Args:
        right: How many.
        count: Of how many.

    Returns:
        Its ends.
    """
    found: Any = _binomtest()(right, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two ways to answer the same rows, held against each other.

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


def paired(first: Sequence[Answer], second: Sequence[Answer], names: tuple[str, str]) -> Paired:
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
    return paired_right([one for one, _ in both], [other for _, other in both], names)


def paired_right(first: Sequence[bool], second: Sequence[bool], names: tuple[str, str]) -> Paired:
    """Compare two ways row by row.

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
        p_value = float(_binomtest()(min(ahead, behind), ahead + behind, 0.5).pvalue)
    return Paired(
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


def _binomtest() -> Any:
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise ImportError(
            'the intervals need scipy: pip install "langchain-gkt[report]"'
        ) from error
    return binomtest
