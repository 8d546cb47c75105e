"""The rule for begun answers: a trailing AIMessage without tool calls."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage


def is_begun_answer(message: BaseMessage) -> bool:
    """Whether a last message is the beginning of the answer rather than a turn of its own."""
    return isinstance(message, AIMessage) and not (message.tool_calls or message.invalid_tool_calls)


def begun_text(messages: Sequence[BaseMessage]) -> str | None:
    """Return the text of the begun answer at the end of a conversation, or None."""
    return str(messages[-1].text) if messages and is_begun_answer(messages[-1]) else None
