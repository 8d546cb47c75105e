"""What an evaluation writes down: the teacher's replies, and every finished answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from langchain_gkt.costs.totals import CallRecord
from langchain_gkt.evaluation.validation import plain_error

T = TypeVar("T")

AnswerKey: TypeAlias = tuple[str, str, int | None]
"""Names an answer: its row, mode and length."""

_KNOWN_FIELDS = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True, kw_only=True, config=_KNOWN_FIELDS)
class AnswerPart:
    """One model's part of an answer.

    Attributes:
        calls: Calls made, failed ones included.
        prompt_tokens: Prompt tokens.
        completion_tokens: Completion tokens.
        prompt_cost: US dollars for prompt tokens as a decimal string; None if unknown.
        completion_cost: US dollars for the rest; None if unknown.
        seconds: Time its calls took.
        first_token_seconds: Time to its first streamed token, or None.
        unreported: Calls that failed or reported no usage, and may have been billed: the costs
            are then the least that they can be.
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
        """Refuse costs that are no numbers."""
        for name in ("prompt_cost", "completion_cost"):
            try:
                Decimal(getattr(self, name) or 0)
            except InvalidOperation:
                raise ValueError(
                    f"AnswerPart.{name} must be a decimal number, not {getattr(self, name)!r}"
                ) from None

    @property
    def cost(self) -> Decimal | None:
        """US dollars, or None if they are unknown."""
        if self.prompt_cost is None or self.completion_cost is None:
            return None
        return Decimal(self.prompt_cost) + Decimal(self.completion_cost)


def part_of(calls: Sequence[CallRecord], role: str) -> AnswerPart:
    """Sum up one model's calls.

    Args:
        calls: What a `CostTracker` with ``keep_calls`` kept of one chain call.
        role: ``teacher`` or ``student``.

    Returns:
        The sums.
    """
    mine = [call for call in calls if call.role == role]
    unreported = sum(call.counts.unreported_calls for call in mine)
    priced = not any(call.counts.unpriced_calls for call in mine)
    # If no call at all reported its usage, nothing is known, not even the least.
    known = priced and (not unreported or unreported < len(mine))
    machine = sum((call.counts.machine_cost for call in mine), Decimal(0))
    prompt = sum((call.counts.prompt_cost for call in mine), Decimal(0))
    completion = sum((call.counts.completion_cost for call in mine), machine)
    return AnswerPart(
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
    """One reply of the teacher, as it was written and paid for.

    Attributes:
        text: Its text.
        usage: Its usage metadata, or None.
        finish_reason: The provider's word for why it stopped, or None.
        pieces: The text token by token, each as hexadecimal UTF-8 bytes, if the provider reports
            them (``logprobs``); a token may be part of a character.
        part: Its tokens, money and time.
    """

    text: str
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    pieces: list[str] | None = None
    part: AnswerPart = field(default_factory=AnswerPart)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TeacherReply:
        """Undo `dataclasses.asdict`.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong type.
        """
        return _read(_REPLY, data, "TeacherReply")


@dataclass(frozen=True, kw_only=True, config=_KNOWN_FIELDS)
class Answer:
    """One finished answer.

    Attributes:
        row: The row's key.
        mode: ``teacher``, ``student`` or ``guided``.
        length: Most guidance tokens; None in the other modes.
        text: The whole answer.
        guidance: What of it the teacher wrote, as the student read it.
        verdicts: Metric names and what they say: right, wrong, or None for unparsed.
        leaked: Whether the guidance alone contains the answer.
        teacher: The teacher's part.
        student: The student's part.
        seconds: From the question to the end of the answer.
        first_token_seconds: From the question to the first text that could be shown.
        started: When it was asked, in seconds since the epoch.
        finish_reason: Why it ended.
        finished_by: ``teacher`` or ``student``.
        fallback: Why the student answered without guidance it should have had, or None.
        confidence: The student's, if the policy depended on it.
        probabilities: Those that the student gives its own first tokens, if it was asked.
        entropies: Those of the distributions that these tokens were chosen from, likewise.
        replayed: Whether the teacher's part comes from a reply that was already paid for.
    """

    row: str
    mode: str
    length: int | None = None
    text: str
    guidance: str = ""
    verdicts: dict[str, bool | None]
    leaked: bool = False
    teacher: AnswerPart = field(default_factory=AnswerPart)
    student: AnswerPart = field(default_factory=AnswerPart)
    seconds: float = 0.0
    first_token_seconds: float | None = None
    started: float = 0.0
    finish_reason: str | None = None
    finished_by: str = "student"
    fallback: str | None = None
    confidence: float | None = None
    probabilities: list[float] | None = None
    entropies: list[float] | None = None
    replayed: bool = False

    def __post_init__(self) -> None:
        """Refuse an answer that the main metric has not judged."""
        if "answer" not in self.verdicts:
            raise ValueError("Answer.verdicts must hold the main metric's verdict, 'answer'")

    @property
    def right(self) -> bool:
        """Whether the main metric says so."""
        return self.verdicts["answer"] is True

    @property
    def key(self) -> AnswerKey:
        """The name that no other answer of its run has."""
        return self.row, self.mode, self.length

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
        """Undo `to_dict`.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong type.
        """
        return _read(_ANSWER, data, "Answer")


_REPLY, _ANSWER = TypeAdapter(TeacherReply), TypeAdapter(Answer)


def _read(adapter: TypeAdapter[T], data: Any, name: str) -> T:
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise ValueError(str(plain_error(error, name))) from None
