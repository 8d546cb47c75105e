"""Makes a conversation fit: drops its oldest turns, or the start of its last text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_gkt.texts.begun_answer import is_begun_answer


def truncate(
    messages: Sequence[BaseMessage], fits: Callable[[list[BaseMessage]], bool]
) -> list[BaseMessage]:
    """Leave out the oldest turns of a conversation, as few as possible.

    System messages and the last turn stay. If they alone are too long, the last turn's text
    loses its beginning.

    Args:
        messages: The conversation. A trailing AIMessage is the beginning of the answer.
        fits: Whether a conversation is short enough. Called some ten times for any number of turns,
            because leaving out more never makes it longer.
    """
    system = [m for m in messages if isinstance(m, SystemMessage)]
    turns = [m for m in messages if not isinstance(m, SystemMessage)]
    begun = [turns.pop()] if turns and is_begun_answer(turns[-1]) else []
    # A conversation begins with a question, not with an answer or a tool's result.
    starts = [at for at, m in enumerate(turns) if not at or isinstance(m, HumanMessage)]
    if not starts:
        return list(messages)
    if starts[-1] != len(turns) - 1:
        starts.append(len(turns) - 1)

    def kept(turns: Sequence[BaseMessage]) -> list[BaseMessage]:
        return [*system, *turns, *begun]

    index = bisect_left(starts, True, key=lambda start: fits(kept(turns[start:])))
    if index < len(starts):
        return kept(turns[starts[index] :])
    text = str(turns[-1].text)

    def last(start: int) -> list[BaseMessage]:
        return kept([turns[-1].model_copy(update={"content": text[start:] or "."})])

    return last(bisect_left(range(len(text)), True, key=lambda start: fits(last(start))))
