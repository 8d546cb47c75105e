"""Recorded answers: their required fields, and how to find them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.providers.usage import believable
from langchain_gkt.teachers.replies import STOPPED_AT_LIMIT, finish_reason, whole_characters
from langchain_gkt.teachers.token_cuts import logprob_pieces

BEGINNING = 60
"""Characters of a question in errors."""

_MOST_NAMED = 5
"""Maximum number of rows in one error."""

# The last block of a prompt in the form of worked examples.
_LAST_BLOCK = re.compile(r"(?:.*\n\n|\A)Q: (.+?)\nA:\s*\Z", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recorded answer, and what is known of it."""

    question: str  # the text of the user's last message
    answer: str
    place: str  # file and line, for errors
    id: str | None  # a name of the row
    usage: dict[str, Any]
    finish_reason: str
    pieces: tuple[bytes, ...]  # its tokens, if recorded
    model: str | None
    provider: str | None


class BadRow(ValueError):
    """A fault of one row, as the rest of a sentence that begins with its place."""


def refuse_rows(problems: Sequence[str], hint: str) -> None:
    """Raise a `ConfigurationError` for bad rows, if there are any. Each fault has its place."""
    if problems:
        raise ConfigurationError(first_few(problems, "; "), hint=hint)


def first_few(texts: Sequence[str], separator: str = ", ") -> str:
    """Join the first five texts, and count the others."""
    more = len(texts) - _MOST_NAMED
    return separator.join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def from_message(question: str, message: AIMessage, place: str, **known: Any) -> Recording:
    """Make a recording from an answer, its usage, finish reason, logprobs and model.

    Attributes ``known`` from other sources take precedence. Raises a `BadRow` if the question is
    empty, or the answer is empty, truncated or a tool call.
    """
    question, answer = whole_characters(question), whole_characters(str(message.text))
    reason = finish_reason(message) or "stop"
    if not question.strip():
        raise BadRow("has no question")
    if message.tool_calls or message.invalid_tool_calls:
        raise BadRow("calls a tool; only text can be replayed")
    if not answer.strip():
        raise BadRow("has an empty answer")
    if reason.lower() in {*STOPPED_AT_LIMIT, "content_filter"}:
        raise BadRow(f"has an answer without its end (finish reason {reason!r})")
    usage, refused = believable(message.usage_metadata, wrote=True)
    if refused:
        raise BadRow(f"reports usage that cannot be true ({refused})")
    metadata = message.response_metadata
    parts: dict[str, Any] = {
        "id": None,
        "usage": {name: count for name, count in (usage or {}).items() if count},
        "model": metadata.get("model_name") or metadata.get("model"),
        "provider": metadata.get("model_provider"),
    }
    parts |= known
    for name in ("model", "provider"):
        if not isinstance(parts[name], str | None):
            raise BadRow(f"has {name}={parts[name]!r}, which is no text")
    return Recording(
        question=question,
        answer=answer,
        place=place,
        finish_reason=reason,
        pieces=tuple(bytes.fromhex(piece) for piece in logprob_pieces(message) or ()),
        **parts,
    )


def asked_in(messages: Sequence[BaseMessage]) -> HumanMessage | None:
    """Return the user's last message, if only system messages follow it."""
    last = next((m for m in reversed(messages) if not isinstance(m, SystemMessage)), None)
    return last if isinstance(last, HumanMessage) else None


class Recordings(BaseModel):
    """Recorded answers, found by question or by id."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    source: str
    dated: str | None = None  # the day of the source's last change
    digest: str  # distinguishes them from others
    answers: tuple[Recording, ...] = Field(exclude=True, repr=False)
    _by_question: dict[str, Recording] = PrivateAttr(default_factory=dict)
    _by_id: dict[str, Recording] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, answers: Sequence[Recording], source: str, dated: str | None = None) -> Recordings:
        """Index some answers. Raises an error if a question or an id has two of them."""
        # The same log under another path holds the same answers.
        content = repr([replace(answer, place="") for answer in answers])
        recordings = cls(
            source=source,
            dated=dated,
            digest=hashlib.sha256(content.encode()).hexdigest(),
            answers=tuple(answers),
        )
        problems = list[str]()
        for answer in answers:
            earlier = recordings._by_question.setdefault(answer.question.strip(), answer)
            if earlier.answer != answer.answer:
                problems.append(
                    f"{answer.place} gives a second answer to {begins(answer.question)}, which "
                    f"{earlier.place} answers otherwise"
                )
            named = recordings._by_id.setdefault(answer.id, answer) if answer.id else answer
            if named.question.strip() != answer.question.strip():
                problems.append(f"{answer.place} repeats the id {answer.id!r} of {named.place}")
        refuse_rows(problems, "keep one answer of each question and one question of each id")
        return recordings

    def find(self, messages: Sequence[BaseMessage]) -> Recording | None:
        """Return the answer to a conversation's last message, or None."""
        if (asked := asked_in(messages)) is None:
            return None
        text = str(asked.text)
        recording = self._by_question.get(text.strip()) or self._by_id.get(asked.id or "")
        if recording is None and (block := _LAST_BLOCK.match(text)):
            recording = self._by_question.get(block[1].strip())
        return recording


def begins(question: str) -> str:
    """Name a question by its beginning."""
    text = " ".join(question.split())
    return repr(text if len(text) <= BEGINNING else f"{text[:BEGINNING]}...")
