"""Whether one of the bound tools fits a request, as a student sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from langchain_gkt.students.protocol import FirstToken

_QUESTION = """Tools:

{tools}

Request: {request}

Is one of these tools made for this request? Answer with one word, Yes or No."""


def tool_fit_question(
    messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]]
) -> list[BaseMessage] | None:
    """Return what to ask a student about a turn.

    Args:
        messages: The conversation.
        tools: The bound tools, in OpenAI's form.

    Returns:
        The question. None if the last message is not a user's text, because a tool was called
        already.
    """
    request = messages[-1].text if isinstance(messages[-1], HumanMessage) else ""
    if not request.strip():
        return None
    listed = "\n".join(_shown(tool["function"]) for tool in tools if "function" in tool)
    return [HumanMessage(_QUESTION.format(tools=listed, request=request))]


def tool_fit(tokens: Sequence[FirstToken]) -> float | None:
    """Return how likely a student says yes. None if it says neither yes nor no.

    Args:
        tokens: The first token of its answer.
    """
    if not tokens:
        return None
    said = (tokens[0].text or "").strip().lower()
    likely = tokens[0].probability
    return {"yes": likely, "no": 1 - likely}.get(said)


def _shown(function: Mapping[str, Any]) -> str:
    fields = (function.get("parameters") or {}).get("properties") or {}
    shown = ", ".join(
        f"{name} ({field.get('description', '')})" if isinstance(field, Mapping) else name
        for name, field in fields.items()
    )
    return f"- {function['name']}: {function.get('description', '')} Parameters: {shown}"
