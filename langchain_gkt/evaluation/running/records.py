"""What an evaluation writes down: the teacher's replies, and every finished answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from langchain_gkt.costs.totals import CallRecord


@dataclass(frozen=True, kw_only=True)
class Part:
    """One model's part of an answer.

    Attributes:
        calls: Calls made, failed ones included.
        prompt_tokens: Prompt tokens.
        completion_tokens: Completion tokens.
        prompt_cost: US dollars for prompt tokens as a decimal string; None where unknown.
        completion_cost: US dollars for the rest; None where unknown.
        seconds: Time its calls took.
        first_token_seconds: Time to its first streamed token, or None.
        unreported: Calls beside others that failed or told no usage, and may have been billed:
            the money is then the least it can be.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_cost: str | None = "0"
    completion_cost: str | None = "0"
    seconds: float = 0.0
    first_token_seconds: float | None = None
    unreported: int = 0

    @property
    def cost(self) -> Decimal | None:
        """US dollars, or None where they are unknown."""
        if self.prompt_cost is None or self.completion_cost is None:
            return None
        return Decimal(self.prompt_cost) + Decimal(self.completion_cost)


def part_of(calls: Sequence[CallRecord], role: str) -> Part:
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
    # Where no call at all told its usage, nothing is known, not even the least.
    whole = priced and (not unreported or unreported < len(mine))
    machine = sum((call.counts.machine_cost for call in mine), Decimal(0))
    prompt = sum((call.counts.prompt_cost for call in mine), Decimal(0))
    completion = sum((call.counts.completion_cost for call in mine), machine)
    return Part(
        calls=len(mine),
        prompt_tokens=sum(call.counts.prompt_tokens for call in mine),
        completion_tokens=sum(call.counts.completion_tokens for call in mine),
        prompt_cost=str(prompt) if whole else None,
        completion_cost=str(completion) if whole else None,
        seconds=sum(call.seconds for call in mine),
        first_token_seconds=mine[-1].first_token_seconds if mine else None,
        unreported=unreported,
    )


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the teacher really wrote and was paid for.

    Attributes:
        text: Its text.
        usage: Its usage metadata, or None.
        finish_reason: The provider's word for why it stopped, or None.
        pieces: The text token by token, each as hexadecimal UTF-8 bytes, where the provider
            tells them (``logprobs``); a token may be part of a character.
        part: Its tokens, money and time.
    """

    text: str
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    pieces: list[str] | None = None
    part: Part = field(default_factory=Part)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reply:
        """Undo `dataclasses.asdict`."""
        return cls(**{**data, "part": Part(**data["part"])})


@dataclass(frozen=True, kw_only=True)
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
        confidence: The student's, where the policy went by it.
        probabilities: What the student gives its own first tokens; where it was asked.
        replayed: Whether the teacher's part comes from a reply that was already paid for.
    """

    row: str
    mode: str
    length: int | None = None
    text: str
    guidance: str = ""
    verdicts: dict[str, bool | None]
    leaked: bool = False
    teacher: Part = field(default_factory=Part)
    student: Part = field(default_factory=Part)
    seconds: float = 0.0
    first_token_seconds: float | None = None
    started: float = 0.0
    finish_reason: str | None = None
    finished_by: str = "student"
    fallback: str | None = None
    confidence: float | None = None
    probabilities: list[float] | None = None
    replayed: bool = False

    @property
    def right(self) -> bool:
        """Whether the main metric says so."""
        return self.verdicts["answer"] is True

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What tells it from the others of a run."""
        return self.row, self.mode, self.length

    @property
    def cost(self) -> Decimal | None:
        """US dollars of both models, or None where they are unknown."""
        teacher, student = self.teacher.cost, self.student.cost
        return None if teacher is None or student is None else teacher + student

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Answer:
        """Undo `to_dict`."""
        parts = {name: Part(**data[name]) for name in ("teacher", "student")}
        return cls(**{**data, **parts})
