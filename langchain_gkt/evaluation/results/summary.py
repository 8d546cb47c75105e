"""Sums over answers: accuracy with its interval, tokens, costs, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

from langchain_gkt.evaluation.results.statistics import covered, wilson
from langchain_gkt.evaluation.running.records import Answer, AnswerPart


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The sums over all answers of one mode and length.

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
        teacher: Sums of the teacher's part.
        student: Sums of the student's part.
        wall_seconds: Time during which at least one of the questions was being answered.
        seconds: Median time of an answer.
        first_token_seconds: Median time to an answer's first text; None if not measured.
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
    teacher: AnswerPart
    student: AnswerPart
    wall_seconds: float
    seconds: float
    first_token_seconds: float | None

    @property
    def cost(self) -> Decimal | None:
        """US dollars of both models, or None if they are unknown."""
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
        teacher=add_parts([a.teacher for a in answers]),
        student=add_parts([a.student for a in answers]),
        wall_seconds=covered([(a.started, a.started + a.seconds) for a in answers]),
        seconds=median(a.seconds for a in answers),
        first_token_seconds=median(first) if first else None,
    )


def add_parts(parts: Sequence[AnswerPart]) -> AnswerPart:
    """Add up; a cost that is unknown for one is unknown for all.

    Args:
        parts: The parts.

    Returns:
        Their sums; the time to the first token is the mean of those that have one.
    """
    first = [p.first_token_seconds for p in parts if p.first_token_seconds is not None]

    def total(costs: Sequence[str | None]) -> str | None:
        known = [Decimal(cost) for cost in costs if cost is not None]
        return str(sum(known, Decimal(0))) if len(known) == len(costs) else None

    return AnswerPart(
        calls=sum(p.calls for p in parts),
        prompt_tokens=sum(p.prompt_tokens for p in parts),
        completion_tokens=sum(p.completion_tokens for p in parts),
        prompt_cost=total([p.prompt_cost for p in parts]),
        completion_cost=total([p.completion_cost for p in parts]),
        seconds=sum(p.seconds for p in parts),
        first_token_seconds=sum(first) / len(first) if first else None,
        unreported=sum(p.unreported for p in parts),
    )
