"""Hopeless questions: if neither model is expected to be right, no teacher is paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

from langchain_core.messages import BaseMessage
from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass

from langchain_gkt.errors import share_field
from langchain_gkt.gates.base import Signals, ThresholdGate, gate_from
from langchain_gkt.gates.learned import LearnedGate, Predictor
from langchain_gkt.modes import Amount
from langchain_gkt.students.protocol import Student
from langchain_gkt.students.voting import AnswerOf


@dataclass(frozen=True, kw_only=True)
class HopelessGate(ThresholdGate):
    """Decides as another gate does, but leaves hopeless questions to the student.

    A question is hopeless if the teacher's whole answer is hardly more often right than the
    student's. On a ladder this saves the last step.

    Attributes:
        gate: The other gate, such as ``AgreementGate(samples=5)``.
        predictor: The predictor of `Sweep.choose` with ``predictor=True``.
        least_gain: How much more often the teacher must be expected to be right, from 0 to 1.
    """

    kind: ClassVar[str] = "hopeless"
    gate: Annotated[Any, BeforeValidator(gate_from)]
    predictor: Predictor
    least_gain: Annotated[float, share_field("HopelessGate.least_gain")] = 0.05

    @model_validator(mode="after")
    def _check_gate(self) -> HopelessGate:
        if not isinstance(self.gate, ThresholdGate) or isinstance(self.gate, HopelessGate):
            raise ValueError(
                "HopelessGate.gate must be another gate with a threshold, such as AgreementGate(), "
                f"not {self.gate!r}"
            )
        return self

    @property
    def shown_as(self) -> str | None:
        """The other gate's name in reports."""
        return self._inner.shown_as

    @property
    def _inner(self) -> ThresholdGate:
        return cast(ThresholdGate, self.gate)

    @property
    def _learned(self) -> LearnedGate:
        return LearnedGate(predictor=self.predictor)

    def require(self, student: Student) -> None:
        """Refuse a student that does not report the signals of either part."""
        for gate in (self._inner, self._learned):
            gate.require(student)

    def reading(self, answer_of: AnswerOf) -> HopelessGate:
        """Return a copy whose other gate reads answers as the chain does."""
        return replace(self, gate=self._inner.reading(answer_of))

    def measure(self, student: Student, messages: list[BaseMessage]) -> Signals:
        """Return the signals of both parts, and ``hopeless``: 1 or 0."""
        of_question = self._learned.measure(student, messages)
        return self._joined(of_question, self._inner.measure(student, messages))

    async def ameasure(self, student: Student, messages: list[BaseMessage]) -> Signals:
        """Do what `measure` does, on the event loop."""
        of_question = await self._learned.ameasure(student, messages)
        return self._joined(of_question, await self._inner.ameasure(student, messages))

    def _joined(self, first: Mapping[str, float], second: Mapping[str, float]) -> Signals:
        values = {**first, **second, "hopeless": float(self._is_hopeless(first))}
        if isinstance(second, Signals):
            return Signals(values, answers=second.answers, winner=second.winner)
        return Signals(values)

    def _is_hopeless(self, signals: Mapping[str, float]) -> bool:
        expected = self._learned.expectations(signals)
        return expected["all"] - expected["none"] < self.least_gain

    def decide(self, signals: Mapping[str, float]) -> Amount:
        """Ask nothing if the question is hopeless. Otherwise follow the other gate."""
        return "none" if self._is_hopeless(signals) else self._inner.decide(signals)

    def expectations(self, signals: Mapping[str, float]) -> Mapping[Amount, float]:
        """Return the share of right answers that the predictor expects of each amount."""
        return self._learned.expectations(signals)

    def score(self, signals: Mapping[str, float]) -> float:
        """Return the other gate's score, whether the question is hopeless or not."""
        return self._inner.score(signals)

    def asking_above(self, score: float) -> HopelessGate:
        """Return a copy whose other gate has another threshold."""
        return replace(self, gate=self._inner.asking_above(score))

    def to_dict(self) -> dict[str, Any]:
        """Return the gate as plain values, the other gate's kind included."""
        return {**super().to_dict(), "gate": self._inner.to_dict()}
