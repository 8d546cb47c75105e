"""Parts of a conversation: its turns, and what its system message says."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage


def leading_system(messages: Sequence[BaseMessage]) -> int:
    """Return how many system messages a conversation begins with.

    Args:
        messages: The conversation.
    """
    others = (i for i, message in enumerate(messages) if not isinstance(message, SystemMessage))
    return next(others, len(messages))


def with_system_text(messages: Sequence[BaseMessage], text: str) -> list[BaseMessage]:
    """Add a text to what a conversation's system message says.

    Args:
        messages: The conversation.
        text: The text.

    Returns:
        The conversation; the system messages it begins with are joined with the text, because
        many templates take one system message only.
    """
    found = leading_system(messages)
    first = "\n\n".join([*(str(m.text) for m in messages[:found]), text])
    return [SystemMessage(first), *messages[found:]]


def turns(messages: Sequence[BaseMessage]) -> list[list[BaseMessage]]:
    """Divide a conversation into turns: what a user says, and all that follows up to the next.

    Args:
        messages: The conversation without the system messages it begins with.

    Returns:
        The turns; messages of the user in a row begin one turn.
    """
    found: list[list[BaseMessage]] = []
    asked = False
    for message in messages:
        is_user = isinstance(message, HumanMessage)
        if not found or (is_user and not asked):
            found.append([])
        found[-1].append(message)
        asked = is_user
    return found
