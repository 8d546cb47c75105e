"""The interface of gates. A gate measures signals of a question, and decides from them.

A gate of your own is one class in one file. Its definition registers it under its ``kind``, which
names it in a policy's JSON file.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import run_in_executor

from langchain_gkt.errors import KnownFields, nearest
from langchain_gkt.modes import Amount
from langchain_gkt.students.protocol import Student
from langchain_gkt.students.voting import AnswerOf

_KINDS: dict[str, type[Gate]] = {}


class Signals(dict[str, float]):
    """Signals by name, and the student's own answers if measuring needed some.

    Attributes:
        answers: The answers, which are paid for. Empty if none were needed.
        winner: The answer to show if the teacher is not asked. None to have the student write it.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        *,
        answers: Sequence[AIMessage] = (),
        winner: AIMessage | None = None,
    ) -> None:
        """Keep signals and answers."""
        super().__init__(values)
        self.answers, self.winner = list(answers), winner


_Threshold = TypeVar("_Threshold", bound="ThresholdGate")


class Gate(KnownFields, ABC):
    """Decides for each question how much of the answer the teacher writes.

    A gate is a frozen dataclass. A policy's file holds its fields.

    Attributes:
        kind: Its name in a policy's file.
    """

    kind: ClassVar[str]

    @property
    def shown_as(self) -> str | None:
        """Name in reports of the answer that it shows if it asks no teacher.

        None if the student then answers as it does without a gate.
        """
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register a gate that has a kind of its own.

        Raises:
            ValueError: If another gate already has the kind.
        """
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            known = _KINDS.get(cls.kind, cls)
            if known.__qualname__ != cls.__qualname__:
                raise ValueError(f"kind={cls.kind!r} is taken by {known.__qualname__}; rename one")
            _KINDS[cls.kind] = cls

    def require(self, student: Student) -> None:
        """Refuse a student whose signals cannot be measured. Called before any question.

        Raises:
            ValueError: If it does not report what the gate needs. The message names the fix.
        """

    @abstractmethod
    def measure(self, student: Student, messages: list[BaseMessage]) -> Mapping[str, float]:
        """Measure a question, before the teacher is paid.

        Args:
            student: The student, which `require` has accepted.
            messages: The conversation.

        Returns:
            The signals by name. `Signals` also holds answers that measuring needed.
        """

    async def ameasure(self, student: Student, messages: list[BaseMessage]) -> Mapping[str, float]:
        """Do what `measure` does on the event loop, in a thread unless a gate awaits."""
        return await run_in_executor(None, self.measure, student, messages)

    @abstractmethod
    def decide(self, signals: Mapping[str, float]) -> Amount:
        """Decide how much the teacher writes, from the signals of `measure` or of a sweep."""

    def reading(self, answer_of: AnswerOf) -> Gate:
        """Return the gate for a chain that compares answers by ``answer_of``."""
        return self

    def expectations(self, signals: Mapping[str, float]) -> Mapping[Amount, float] | None:
        """Return the expected share of right answers by amount. None if the gate has none."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the gate as plain values, its kind included."""
        fields: Any = self
        return {"kind": self.kind, **dataclasses.asdict(fields)}


class ThresholdGate(Gate):
    """A gate that asks the teacher above a threshold of one score. `calibrate` moves it."""

    @abstractmethod
    def score(self, signals: Mapping[str, float]) -> float:
        """Return how strongly the gate wants the teacher. Higher is stronger."""

    @abstractmethod
    def asking_above(self: _Threshold, score: float) -> _Threshold:
        """Return a copy that asks the teacher above a score."""


def gate_from(given: Gate | Mapping[str, Any] | None) -> Gate | None:
    """Read a gate, or the result of its `Gate.to_dict`.

    Raises:
        ValueError: If its kind is unknown or its fields do not fit.
        TypeError: If it is something else.
    """
    if given is None or isinstance(given, Gate):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"GuidancePolicy.gate must be a gate, not {type(given).__name__}")
    fields = dict(given)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(
            f"GuidancePolicy.gate.kind={kind!r} is unknown; {nearest(str(kind), _KINDS)} A gate "
            "of your own is known once its module is imported"
        )
    return _KINDS[kind](**fields)
