"""Agreement: the student answers several times, and the gate decides by how many agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass

from langchain_gkt.errors import count_field, is_number
from langchain_gkt.gates.base import Signals, ThresholdGate, gate_from
from langchain_gkt.modes import Amount
from langchain_gkt.students.protocol import Student
from langchain_gkt.students.voting import AnswerOf, check_answer_of, vote
from langchain_gkt.texts.begun_answer import begun_text


def _check_temperature(value: Any) -> Any:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(
            f"AgreementGate.temperature must be a number above 0, because answers of temperature "
            f"0 are all alike, not {value!r}"
        )
    return value


def _check_tool_fit(value: Any) -> Any:
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(
            f"AgreementGate.tool_fit_below must be a probability between 0 and 1, or None, not "
            f"{value!r}"
        )
    return value


@dataclass(frozen=True, kw_only=True)
class AgreementGate(ThresholdGate):
    """Asks the teacher if too few of the student's own answers agree.

    If enough agree, the most common answer is shown, and the student is not asked again.

    Attributes:
        samples: How often the student answers. 2 or more.
        at_least: How many answers must agree. With fewer the gate asks the teacher.
        answer_of: When two answers are equal: by ``number``, ``option``, ``json``, ``text``, or a
            function from a text to the value to compare. None for the chain's ``answer_of``.
        temperature: Sampling temperature of these answers, above 0.
        tool_fit_below: Only for `GuidancePolicy.tools`. If too few samples agree, the student says
            whether one of the tools is made for the request. If its probability of yes is below
            this number, the turn is text, and not the teacher's. None to not ask. Students differ,
            so find the number on your own requests.

    References:
        Yue et al., "Large Language Model Cascades with Mixture of Thoughts Representations for
        Cost-efficient Reasoning", 2310.03094.
    """

    kind: ClassVar[str] = "agreement"
    samples: Annotated[int, count_field("AgreementGate.samples", 2)] = 5
    at_least: Annotated[int, count_field("AgreementGate.at_least", 1)] = 3
    answer_of: Annotated[Any, BeforeValidator(check_answer_of)] | None = None
    temperature: Annotated[float, BeforeValidator(_check_temperature)] = 0.7
    tool_fit_below: Annotated[float, BeforeValidator(_check_tool_fit)] | None = None

    @model_validator(mode="after")
    def _check_count(self) -> AgreementGate:
        if self.at_least > self.samples:
            raise ValueError(
                f"AgreementGate.at_least={self.at_least} is more than samples={self.samples}; "
                "the teacher would always be asked"
            )
        return self

    @property
    def shown_as(self) -> str:
        """The vote, by its number of samples."""
        return f"vote of {self.samples}"

    def reading(self, answer_of: AnswerOf) -> AgreementGate:
        """Return a copy that reads answers as the chain does, unless ``answer_of`` is set."""
        return self if self.answer_of is not None else replace(self, answer_of=answer_of)

    def measure(self, student: Student, messages: list[BaseMessage]) -> Signals:
        """Return ``agreement``, the share of answers that agree, and the answers."""
        answers = student.sample(messages, self.samples, temperature=self.temperature)
        return self._signals(messages, answers)

    async def ameasure(self, student: Student, messages: list[BaseMessage]) -> Signals:
        """Do what `measure` does, on the event loop."""
        answers = await student.asample(messages, self.samples, temperature=self.temperature)
        return self._signals(messages, answers)

    def _signals(self, messages: list[BaseMessage], answers: list[AIMessage]) -> Signals:
        result = vote(answers, self.answer_of or "text", begun=begun_text(messages) or "")
        return Signals({"agreement": result.agreement}, answers=answers, winner=result.winner)

    def decide(self, signals: Mapping[str, float]) -> Amount:
        """Ask for the policy's tokens if too few agree."""
        return "some" if round(signals["agreement"] * self.samples) < self.at_least else "none"

    def score(self, signals: Mapping[str, float]) -> float:
        """Return the share of answers that do not agree."""
        return 1 - signals["agreement"]

    def asking_above(self, score: float) -> AgreementGate:
        """Return a copy with another threshold."""
        least = math.ceil((1 - score) * self.samples - 1e-9)
        return replace(self, at_least=min(self.samples, max(1, least)))

    def to_dict(self) -> dict[str, Any]:
        """Return the gate as plain values.

        Raises:
            ValueError: If ``answer_of`` is a function, which no file can hold.
        """
        if callable(self.answer_of):
            raise ValueError(
                "AgreementGate.answer_of is a function, which a policy's file cannot hold; use "
                "'number', 'option', 'json' or 'text', or give answer_of= to the chain instead"
            )
        data = super().to_dict()
        if self.tool_fit_below is None:  # older files and runs lack it
            del data["tool_fit_below"]
        return data


def answer_gate_from(value: Any) -> Any:
    """Read a policy's ``gate`` as `gate_from` does. Refuse a gate for tools."""
    gate = gate_from(value)
    if isinstance(gate, AgreementGate) and gate.tool_fit_below is not None:
        raise ValueError(
            "GuidancePolicy.gate decides about answers, and AgreementGate.tool_fit_below about "
            "tool calls; give that gate to GuidancePolicy.tools"
        )
    return gate


def tool_gate_from(value: Any) -> Any:
    """Read a policy's ``tools``: ``teacher``, an `AgreementGate`, or the fields of one."""
    gate = gate_from(value) if isinstance(value, Mapping) else value
    if gate == "teacher":
        return gate
    if not isinstance(gate, AgreementGate):
        raise ValueError(
            f"GuidancePolicy.tools must be 'teacher' or an AgreementGate, not {gate!r}"
        )
    if gate.answer_of is not None:
        raise ValueError(
            "GuidancePolicy.tools compares calls by name and arguments; leave out "
            f"AgreementGate.answer_of={gate.answer_of!r}"
        )
    return gate
