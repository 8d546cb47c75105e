"""Parts of a conversation: its turns, and the text of its system message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage


def leading_system(messages: Sequence[BaseMessage]) -> int:
    """Return how many system messages a conversation begins with."""
    others = (i for i, message in enumerate(messages) if not isinstance(message, SystemMessage))
    return next(others, len(messages))


def with_text_behind(message: BaseMessage, text: str) -> Any:
    """Return a copy of a message with one more paragraph. Blocks keep their form."""
    content: Any = message.content
    if isinstance(content, str):
        content = f"{content}\n\n{text}" if content else text
    else:
        content = [*content, {"type": "text", "text": f"\n\n{text}" if content else text}]
    return message.model_copy(update={"content": content})


def with_system_text(messages: Sequence[BaseMessage], text: str) -> list[BaseMessage]:
    """Add a text to a conversation's system message.

    The system messages at the beginning are joined with it, because many templates take only one.
    If one of them holds blocks, the text goes to the last one.
    """
    begin = leading_system(messages)
    leading, rest = list(messages[:begin]), messages[begin:]
    if not leading:
        return [SystemMessage(text), *rest]
    if all(isinstance(message.content, str) for message in leading):
        joined = "\n\n".join(str(message.content) for message in leading)
        leading = [leading[0].model_copy(update={"content": joined})]
    return [*leading[:-1], with_text_behind(leading[-1], text), *rest]


def turns(messages: Sequence[BaseMessage]) -> list[list[BaseMessage]]:
    """Divide a conversation into turns, each from a user's message up to the next.

    Messages of the user in a row begin one turn. Leave out the system messages at the beginning.
    """
    all_turns: list[list[BaseMessage]] = []
    asked = False
    for message in messages:
        is_user = isinstance(message, HumanMessage)
        if not all_turns or (is_user and not asked):
            all_turns.append([])
        all_turns[-1].append(message)
        asked = is_user
    return all_turns
