"""BillComparison: the measured bill of the same questions in each mode."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from langchain_gkt.costs.totals import UsageTotals, amount


@dataclass(frozen=True, kw_only=True)
class BillComparison:
    """The measured bill of the same questions in each mode.

    Attributes:
        questions: How many questions were asked in each mode.
        seed: Seed of the sample and of the order of the modes.
        confidence: Level of the intervals.
        counts: Sums of both models by mode.
        ratio: Cost of guided answers over that of teacher-only ones. Sums, not a mean.
        interval: Bootstrap interval of the ratio over questions. None for a single question.
        completion_ratio: The same for the teacher's completion tokens only.
        completion_interval: Its interval.
        estimated_completion_tokens: The estimate of teacher-only tokens, over the guided answers
            that it covers. Compare it with the next.
        measured_completion_tokens: The tokens that teacher-only wrote for the same questions.
    """

    questions: int
    seed: int
    confidence: float
    counts: dict[str, UsageTotals]
    ratio: float
    interval: tuple[float, float] | None
    completion_ratio: float
    completion_interval: tuple[float, float] | None
    estimated_completion_tokens: int
    measured_completion_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        estimated, measured = self.estimated_completion_tokens, self.measured_completion_tokens
        return {
            "estimated": False,
            "questions": self.questions,
            "seed": self.seed,
            "confidence": self.confidence,
            "ratio": self.ratio,
            "interval": list(self.interval) if self.interval else None,
            "completion_ratio": self.completion_ratio,
            "completion_interval": (
                list(self.completion_interval) if self.completion_interval else None
            ),
            "modes": {mode: counts.to_dict() for mode, counts in self.counts.items()},
            "cost": amount(sum((c.known_cost for c in self.counts.values()), Decimal(0))),
            "estimate_error": (estimated / measured - 1) if estimated and measured else None,
        }

    def __str__(self) -> str:
        """Return the result in a sentence."""
        text = (
            f"measured on {self.questions} question(s): guided answers cost {self.ratio:.1%} of "
            "teacher only"
        )
        if self.interval:
            low, high = self.interval
            text += f" ({self.confidence:.0%} interval {low:.1%} to {high:.1%})"
        return f"{text}, {self.completion_ratio:.1%} of its completion tokens"
