"""Redaction: placeholders replace, in the teacher's prompt, what must not leave this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_gkt.prompts.base import PreparedPrompt, PromptContext, TeacherPrompt

Find = Callable[[str], Iterable[tuple[int, int, str]]]
"""Finds the places to redact in a text: start, end and a label such as ``EMAIL`` of each."""

# Parts of a message that name its form and hold no text that somebody wrote.
_FORM = {"type", "id", "index", "tool_call_id", "mime_type", "source_type", "role"}


@dataclass(frozen=True)
class Redact(TeacherPrompt):
    """Replaces a function's finds by placeholders such as ``<EMAIL_1>``.

    The same text gets the same placeholder in a whole conversation. The originals return in the
    teacher's reply. An incomplete placeholder at its end is held back while it streams, and left
    out if the reply ends there.

    Attributes:
        find: Finds the places to redact in a text. Of overlapping places the one that begins first
            wins, and of two that begin together the longer one.
    """

    find: Find

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> PreparedPrompt:
        """Replace all finds, also in the arguments of earlier tool calls."""
        written = json.dumps([message.model_dump() for message in messages], default=str)
        mapping = _Mapping(self.find, written)
        return PreparedPrompt(
            messages=[mapping.redact_message(message) for message in messages],
            restore=mapping.restore,
        )


class _Mapping:
    """The placeholders of one conversation."""

    def __init__(self, find: Find, written: str) -> None:
        self._find, self._written = find, written
        self._placeholders: dict[tuple[str, str], str] = {}
        self._originals: dict[str, str] = {}

    def redact_message(self, message: BaseMessage) -> BaseMessage:
        fields = {"content": message.content, "additional_kwargs": message.additional_kwargs}
        for name in ("name", "tool_calls", "invalid_tool_calls", "tool_call_chunks"):
            if getattr(message, name, None):
                fields[name] = getattr(message, name)
        return message.model_copy(update={k: self._redact(value) for k, value in fields.items()})

    def _redact(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, Mapping):
            return {
                key: inner if key in _FORM else self._redact(inner) for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._redact(inner) for inner in value]
        return value

    def _redact_text(self, text: str) -> str:
        parts, at = [], 0
        for start, end, label in sorted(self._find(text), key=lambda span: (span[0], -span[1])):
            if start >= at and end > start:
                parts += [text[at:start], self._placeholder(text[start:end], label)]
                at = end
        return "".join([*parts, text[at:]])

    def _placeholder(self, original: str, label: str) -> str:
        key = (label, original)
        if key not in self._placeholders:
            number = sum(1 for known, _ in self._placeholders if known == label) + 1
            # A user's own text must not become another's original.
            while (mark := f"<{label}_{number}>") in self._written or mark in self._originals:
                number += 1
            self._placeholders[key], self._originals[mark] = mark, original
        return self._placeholders[key]

    def restore(self, text: str) -> str:
        """Put the originals back into a text of the teacher. See `PreparedPrompt`."""
        if not self._originals:
            return text
        parts, at = [], 0
        while (start := text.find("<", at)) >= 0:
            parts.append(text[at:start])
            rest = text[start:]
            if placeholder := next((p for p in self._originals if rest.startswith(p)), None):
                parts.append(self._originals[placeholder])
                at = start + len(placeholder)
            elif any(p.startswith(rest) for p in self._originals):
                return "".join(parts)  # it may become one
            else:
                parts.append("<")
                at = start + 1
        return "".join([*parts, text[at:]])
