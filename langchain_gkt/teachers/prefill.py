"""Asks teachers that refuse a conversation ending in their own begun answer to continue it."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_gkt.prompts.conversation import with_text_behind
from langchain_gkt.teachers.wrappers import models_of
from langchain_gkt.texts.begun_answer import begun_text

# Claude 4.6 and later answer such a conversation with an error, at every provider.
_CLAUDE = re.compile(r"claude-[a-z]+-(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_REFUSES_SINCE = (4, 6)
_MODEL_FIELDS = ("model", "model_name", "model_id")
_LEAST_OVERLAP = 12
"""Minimum characters for a reply's beginning to count as a repetition."""

_INSTRUCTION = """\
Your answer to this has been begun already. This is its beginning:

{begun}

Write only what follows it. Go on exactly where it ends, in the middle of the sentence if it ends
there. Do not repeat it, and do not comment on it."""


def accepts_prefill(teacher: object, model: str | None = None) -> bool:
    """Whether no model that a call may reach is known to refuse a trailing AIMessage.

    ``model`` is a model's name for this call only, or None.
    """
    names = (
        [model]
        if model
        else [
            str(getattr(candidate, field, None) or "")
            for candidate in models_of(teacher)
            for field in _MODEL_FIELDS
        ]
    )
    return not any(map(_refuses, names))


def _refuses(name: str) -> bool:
    match = _CLAUDE.search(name.lower())
    return match is not None and (int(match[1]), int(match[2] or 0)) >= _REFUSES_SINCE


def as_instruction(messages: list[BaseMessage]) -> list[BaseMessage]:
    """Turn a begun answer at the end of a conversation into the user's request to continue it."""
    begun = begun_text(messages)
    if begun is None:
        return messages
    earlier = messages[:-1]
    if not begun.strip():
        return earlier
    instruction = _INSTRUCTION.format(begun=begun)
    asked = earlier[-1] if earlier else None
    if isinstance(asked, HumanMessage):
        # Some chat templates refuse two messages of the user in a row.
        question = with_text_behind(asked, instruction)
        # Its text differs from that of the message with that id.
        return [*earlier[:-1], question.model_copy(update={"id": None})]
    return [*earlier, HumanMessage(instruction)]


def without_repetition(begun: str, reply: AIMessage) -> AIMessage:
    """Make a reply to `as_instruction` follow the begun text.

    A repeated beginning is left out. A space keeps two words from running together.
    """
    text = str(reply.text)
    if reply.tool_calls or reply.invalid_tool_calls or not begun.strip() or not text.strip():
        return reply
    rest = _after(begun, text)
    words_meet = re.search(r"[A-Za-z0-9,.;:!?)]\Z", begun) and re.match(r"[A-Za-z0-9(]", rest)
    if rest == text and words_meet:
        rest = f" {rest}"
    if begun[-1].isspace():
        rest = rest.lstrip(" ")
    content: Any = rest
    if not isinstance(reply.content, str):  # thinking and its signature stay
        blocks = [b for b in reply.content if isinstance(b, dict) and b.get("type") != "text"]
        content = [*blocks, {"type": "text", "text": rest}]
    return reply.model_copy(update={"content": content})


def _after(begun: str, text: str) -> str:
    """Return the part of a text after the longest end of ``begun`` that it repeats."""
    prefix, written = begun.strip(), text.lstrip()
    if written.startswith(prefix):
        return written[len(prefix) :]
    for size in range(min(len(prefix), len(written)), _LEAST_OVERLAP - 1, -1):
        starts_word = (
            size == len(prefix) or not prefix[-size - 1].isalnum() or not prefix[-size].isalnum()
        )
        if starts_word and prefix.endswith(written[:size]):
            return written[size:]
    return text
