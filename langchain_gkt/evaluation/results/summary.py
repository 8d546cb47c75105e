"""Sums over answers: accuracy with its interval, tokens, costs, time."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results.answer_table import STUDENT, TEACHER, guidance_tokens
from langchain_gkt.evaluation.results.statistics import covered, wilson
from langchain_gkt.evaluation.running.records import ModelUsage

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The sums over all answers of one strategy and guidance length.

    Attributes:
        mode: The strategy, which is the chain's ``mode``.
        length: Maximum guidance tokens. None where guidance plays no part.
        rows: How many answers.
        accuracy: Share of them that the main metric calls right.
        interval: Wilson interval of the accuracy, at 95%.
        metrics: The same share by the other metrics.
        unparsed: Share of answers that the main metric could not read. They count as wrong.
        leaked: Share of rows whose guidance alone contains the answer.
        asked: Share of rows in which the teacher was asked.
        teacher: Sums of the teacher's part.
        student: Sums of the student's part.
        cost: US dollars of both models, or None if they are unknown.
        wall_seconds: Time during which at least one of the questions was being answered.
        seconds: Median time of an answer.
        first_token_seconds: Median time to an answer's first text. None if not measured.
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
    teacher: ModelUsage
    student: ModelUsage
    cost: Decimal | None
    wall_seconds: float
    seconds: float
    first_token_seconds: float | None

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens of both models over the wall time."""
        tokens = self.teacher.completion_tokens + self.student.completion_tokens
        return tokens / self.wall_seconds if self.wall_seconds else 0.0


def summarise(table: pandas.DataFrame) -> Summary:
    """Sum up one group of an `answer_table`: answers of one strategy and guidance length."""
    count, right = len(table), int(table["right"].sum())
    first = table["first_token_seconds"]
    others = [name for name in map(str, table) if name.startswith("is_") and name != "is_answer"]
    ends = table["started"] + table["seconds"]
    return Summary(
        mode=table["strategy"].iloc[0],
        length=guidance_tokens(table)[0],
        rows=count,
        accuracy=right / count,
        interval=wilson(right, count),
        metrics={name[3:]: sum(v is True for v in table[name]) / count for name in others},
        unparsed=float(table["is_answer"].isna().mean()),
        leaked=float(table["leaked"].mean()),
        asked=float((table["teacher_calls"] > 0).mean()),
        teacher=_sum_part(table, TEACHER),
        student=_sum_part(table, STUDENT),
        cost=_money(table["cost"]),
        wall_seconds=covered(list(zip(table["started"], ends, strict=True))),
        seconds=float(table["seconds"].median()),
        first_token_seconds=float(first.median()) if first.notna().any() else None,
    )


def _sum_part(table: pandas.DataFrame, role: str) -> ModelUsage:
    """Add up one model's part."""
    counts = ("calls", "prompt_tokens", "completion_tokens", "unreported")
    sums: dict[str, Any] = {name: int(table[f"{role}_{name}"].sum()) for name in counts}
    for name in ("prompt_cost", "completion_cost"):
        cost = _money(table[f"{role}_{name}"])
        sums[name] = None if cost is None else str(cost)
    first = table[f"{role}_first_token_seconds"]
    return ModelUsage(
        **sums,
        seconds=sum(table[f"{role}_seconds"]),
        first_token_seconds=float(first.mean()) if first.notna().any() else None,
    )


def _money(costs: pandas.Series) -> Decimal | None:
    """Add up money. One unknown amount makes the sum unknown."""
    return None if costs.isna().any() else sum(map(Decimal, costs), Decimal(0))
