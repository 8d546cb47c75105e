"""The student's confidence in the first tokens of its own answer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from langchain_core.messages import BaseMessage
from pydantic.dataclasses import dataclass

from langchain_gkt.errors import count_field, share_field
from langchain_gkt.gates.base import ThresholdGate
from langchain_gkt.gates.first_tokens import first_token_signals, first_tokens_in
from langchain_gkt.modes import Amount
from langchain_gkt.students.protocol import FirstToken, Student


@dataclass(frozen=True, kw_only=True)
class ConfidenceGate(ThresholdGate):
    """Asks the teacher if the student's confidence is low.

    ``GuidancePolicy(ask=0.6, probe_tokens=8)`` is its short form.

    Attributes:
        below: From 0 to 1. The gate asks the teacher if the confidence is lower.
        probe_tokens: How many of the student's own first tokens the confidence uses. 1 is known
            from prefilling the prompt alone. Each more costs one decoding step.
    """

    kind: ClassVar[str] = "confidence"
    below: Annotated[float, share_field("ConfidenceGate.below")]
    probe_tokens: Annotated[int, count_field("ConfidenceGate.probe_tokens", 1)] = 1

    def require(self, student: Student) -> None:
        """Refuse a student that does not report probabilities."""
        if student.first_token_detail == "none":
            raise ValueError(
                f"guidance.ask={self.below:g} is based on the student's confidence, which a "
                f"{type(student.chat_model).__name__} does not report; use a HuggingFaceStudent "
                "or ask='always'"
            )

    def measure(self, student: Student, messages: list[BaseMessage]) -> dict[str, float]:
        """Return ``confidence``, and the first tokens behind it."""
        return _signals(student.first_tokens(messages, tokens=self.probe_tokens))

    async def ameasure(self, student: Student, messages: list[BaseMessage]) -> dict[str, float]:
        """Do what `measure` does, on the event loop."""
        return _signals(await student.afirst_tokens(messages, tokens=self.probe_tokens))

    def decide(self, signals: Mapping[str, float]) -> Amount:
        """Ask for the policy's tokens below the threshold."""
        return "some" if self.score(signals) > -self.below else "none"

    def score(self, signals: Mapping[str, float]) -> float:
        """Return the negative confidence, because a confident student needs no teacher."""
        return -confidence([t.probability for t in first_tokens_in(signals, self.probe_tokens)])

    def asking_above(self, score: float) -> ConfidenceGate:
        """Return a copy with another threshold."""
        return replace(self, below=min(1.0, max(0.0, -score)))


def confidence(probabilities: Sequence[float]) -> float:
    """Return a student's confidence in the answer it would begin by itself.

    It is the geometric mean of the probabilities of its own first tokens. 1 if there are none.
    """
    if not probabilities:
        return 1.0
    return statistics.geometric_mean(probabilities) if min(probabilities) > 0 else 0.0


def _signals(tokens: Sequence[FirstToken]) -> dict[str, float]:
    signals = first_token_signals(tokens)
    return {"confidence": confidence([token.probability for token in tokens]), **signals}
