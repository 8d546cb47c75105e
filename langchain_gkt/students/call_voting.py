"""Votes on tool calls: what most of several turns do, and how many agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage

from langchain_gkt.structured_output.tool_calls import calls_key, fitting_calls
from langchain_gkt.structured_output.tools import required_tool
from langchain_gkt.students.voting import most_frequent
from langchain_gkt.texts.tool_text import written_calls


@dataclass(frozen=True, kw_only=True)
class CallVote:
    """What several turns do. Without calls and reply if no turn is usable."""

    calls: list[dict[str, Any]] | None  # dicts with ``name`` and ``arguments``. May be empty
    reply: AIMessage | None  # the first of the turns that do so
    agreement: float  # the share of all turns that do so, from 0 to 1


def vote_on_calls(
    replies: Sequence[AIMessage],
    tools: Sequence[dict[str, Any]],
    *,
    choice: Any = None,
    parallel: bool = True,
) -> CallVote:
    """Count what turns do. Of two that are equally frequent the earlier one wins.

    A turn agrees with none if its token limit truncated it, or if one of its calls cannot be read,
    names a tool that is not bound or breaks a schema. The same holds if the caller demands another
    call.

    Args:
        replies: The turns.
        tools: The bound tools, in OpenAI's form.
        choice: The ``tool_choice``.
        parallel: Whether a turn may make several calls.

    Raises:
        ImportError: If llguidance (extra ``structured``) is missing.
    """
    turn_calls = [_calls_of(reply, tools, required_tool(choice), parallel) for reply in replies]
    keys = [None if calls is None else calls_key(calls, tools) for calls in turn_calls]
    first, agreement = most_frequent(keys)
    if first is None:
        return CallVote(calls=None, reply=None, agreement=agreement)
    return CallVote(calls=turn_calls[first], reply=replies[first], agreement=agreement)


def _calls_of(
    reply: AIMessage, tools: Sequence[dict[str, Any]], demanded: str | None, parallel: bool
) -> list[dict[str, Any]] | None:
    text = str(reply.text)
    cut = reply.response_metadata.get("finish_reason") == "length"
    if cut or reply.invalid_tool_calls or not (reply.tool_calls or text.strip()):
        return None
    calls: list[dict[str, Any]] | None = [
        {"name": call["name"], "arguments": call["args"]} for call in reply.tool_calls
    ]
    calls = calls or written_calls(text)
    calls = None if calls is None else fitting_calls(calls, tools)
    if calls is None or (len(calls) > 1 and not parallel) or (demanded and not calls):
        return None
    names = {call["name"] for call in calls}
    return calls if demanded in (None, "any") or names == {demanded} else None
