"""The records of an evaluation: the teacher's replies, and every finished answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, field, replace
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from langchain_gkt.costs.totals import CallRecord
from langchain_gkt.evaluation.validation import plain_error
from langchain_gkt.gates.first_tokens import first_token_signals
from langchain_gkt.modes import Mode
from langchain_gkt.students.protocol import FirstToken

T = TypeVar("T")

SWEPT: Mode = "guided"
"""The mode whose guidance length a sweep varies."""


class AnswerKey(NamedTuple):
    """An answer's unique name within its run. See `Answer`."""

    row: str
    mode: str
    length: int | None = None
    sample: int = 0


_KNOWN_FIELDS = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True, kw_only=True, config=_KNOWN_FIELDS)
class ModelUsage:
    """One model's part of an answer.

    Attributes:
        calls: Calls made, failed ones included.
        prompt_tokens: Prompt tokens.
        completion_tokens: Completion tokens.
        prompt_cost: US dollars for prompt tokens as a decimal string. None if unknown.
        completion_cost: US dollars for the rest. None if unknown.
        seconds: Time its calls took.
        first_token_seconds: Time to its first streamed token, or None.
        unreported: Calls that failed or reported no usage, and may have been billed. The costs are
            then lower bounds.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_cost: str | None = "0"
    completion_cost: str | None = "0"
    seconds: float = 0.0
    first_token_seconds: float | None = None
    unreported: int = 0

    def __post_init__(self) -> None:
        """Refuse costs that are not numbers."""
        for name in ("prompt_cost", "completion_cost"):
            try:
                Decimal(getattr(self, name) or 0)
            except InvalidOperation:
                raise ValueError(
                    f"ModelUsage.{name} must be a decimal number, not {getattr(self, name)!r}"
                ) from None

    @property
    def cost(self) -> Decimal | None:
        """US dollars, or None if they are unknown."""
        if self.prompt_cost is None or self.completion_cost is None:
            return None
        return Decimal(self.prompt_cost) + Decimal(self.completion_cost)

    def up_to(self, tokens: int, of: int) -> ModelUsage:
        """Return the share of its first completion tokens, out of a total.

        Prices are per token, so costs follow the tokens. The time is estimated the same way.
        """
        share, cost = Decimal(tokens) / Decimal(max(1, of)), self.completion_cost
        return replace(
            self,
            completion_tokens=tokens,
            completion_cost=None if cost is None else str(Decimal(cost) * share),
            seconds=self.seconds * float(share),
            first_token_seconds=None,
        )


def part_of(calls: Sequence[CallRecord], role: str) -> ModelUsage:
    """Sum up one role's calls among those that a `CostTracker` kept of one chain call."""
    mine = [call for call in calls if call.role == role]
    unreported = sum(call.counts.unreported_calls for call in mine)
    priced = not any(call.counts.unpriced_calls for call in mine)
    # If no call reported its usage, nothing is known, not even a lower bound.
    known = priced and (not unreported or unreported < len(mine))
    machine = sum((call.counts.machine_cost for call in mine), Decimal(0))
    prompt = sum((call.counts.prompt_cost for call in mine), Decimal(0))
    completion = sum((call.counts.completion_cost for call in mine), machine)
    return ModelUsage(
        calls=len(mine),
        prompt_tokens=sum(call.counts.prompt_tokens for call in mine),
        completion_tokens=sum(call.counts.completion_tokens for call in mine),
        prompt_cost=str(prompt) if known else None,
        completion_cost=str(completion) if known else None,
        seconds=sum(call.seconds for call in mine),
        first_token_seconds=mine[-1].first_token_seconds if mine else None,
        unreported=unreported,
    )


@dataclass(frozen=True, kw_only=True, config=_KNOWN_FIELDS)
class TeacherReply:
    """One reply of the teacher, as written and paid for.

    Attributes:
        text: Its text.
        usage: Its usage metadata, or None.
        finish_reason: The provider's reason for the end, or None.
        pieces: The text token by token, each as hexadecimal UTF-8 bytes, if the provider reports
            them (``logprobs``). A token may be part of a character.
        part: Its tokens, money and time.
        cut: How a recorded teacher finds its tokens: a key of `CUT_METHODS`. None for others.
    """

    text: str
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    pieces: list[str] | None = None
    part: ModelUsage = field(default_factory=ModelUsage)
    cut: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TeacherReply:
        """Undo `dataclasses.asdict`, or refuse with a ValueError that names the field."""
        return _read(_REPLY, data, "TeacherReply")


@dataclass(frozen=True, kw_only=True, config=_KNOWN_FIELDS)
class Answer:
    """One finished answer.

    Attributes:
        row: The row's key.
        mode: The ``mode`` of the chain that made it.
        length: Maximum guidance tokens. None where guidance plays no part.
        sample: Its number among answers made the same way.
        text: The whole answer.
        guidance: The part that the teacher wrote, as the student read it.
        verdicts: Results by metric name: right, wrong, or None for unparsed.
        leaked: Whether the guidance alone contains the answer.
        teacher: The teacher's part.
        student: The student's part.
        seconds: From the question to the end of the answer.
        first_token_seconds: From the question to the first text that could be shown.
        started: When the question was asked, in seconds since the epoch.
        finish_reason: Why it ended.
        finished_by: ``teacher`` or ``student``.
        fallback: Why the student answered without the guidance that it should have had, or None.
        signals: Measurements of the question, or of the student's own answer to it, by name.
        replayed: Whether the teacher's part comes from a reply that was paid for earlier.
        confidence: Name of the signal ``confidence`` in lines of schema version 1.
        probabilities: Their name of the signals ``probability_1`` and so on.
        entropies: Their name of the signals ``entropy_1`` and so on.
    """

    row: str
    mode: str
    length: int | None = None
    sample: int = 0
    text: str
    guidance: str = ""
    verdicts: dict[str, bool | None]
    leaked: bool = False
    teacher: ModelUsage = field(default_factory=ModelUsage)
    student: ModelUsage = field(default_factory=ModelUsage)
    seconds: float = 0.0
    first_token_seconds: float | None = None
    started: float = 0.0
    finish_reason: str | None = None
    finished_by: str = "student"
    fallback: str | None = None
    signals: dict[str, float] = field(default_factory=dict)
    replayed: bool = False
    confidence: InitVar[float | None] = None
    probabilities: InitVar[list[float] | None] = None
    entropies: InitVar[list[float] | None] = None

    def __post_init__(
        self,
        confidence: float | None,
        probabilities: list[float] | None,
        entropies: list[float] | None,
    ) -> None:
        """Name the signals of old lines. Refuse an answer without the main metric's verdict."""
        if confidence is not None:
            self.signals.setdefault("confidence", confidence)
        columns = zip_longest(probabilities or (), entropies or ())
        self.signals.update(first_token_signals([FirstToken(*pair) for pair in columns]))
        if "answer" not in self.verdicts:
            raise ValueError("Answer.verdicts must hold the main metric's verdict, 'answer'")

    @property
    def right(self) -> bool:
        """Whether the main metric calls it right."""
        return self.verdicts["answer"] is True

    @property
    def key(self) -> AnswerKey:
        """The answer's unique name within its run."""
        return AnswerKey(self.row, self.mode, self.length, self.sample)

    @property
    def cost(self) -> Decimal | None:
        """US dollars of both models, or None if they are unknown."""
        teacher, student = self.teacher.cost, self.student.cost
        return None if teacher is None or student is None else teacher + student

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Answer:
        """Undo `to_dict`, or refuse with a ValueError that names the field."""
        return _read(_ANSWER, data, "Answer")


_REPLY, _ANSWER = TypeAdapter(TeacherReply), TypeAdapter(Answer)


def _read(adapter: TypeAdapter[T], data: Any, name: str) -> T:
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise ValueError(str(plain_error(error, name))) from None
