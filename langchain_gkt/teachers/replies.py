"""Reads a teacher's reply: why it ended, what it cost, and the guidance in it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from langchain_gkt.errors import TeacherError
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.stop_strings import find_stop
from langchain_gkt.tool_text import begins_call

_STOPPED_AT_LIMIT = {"length", "max_tokens", "max_output_tokens", "model_length", "max_length"}
_REASONING_TAGS = ("think", "thinking", "thought", "reasoning")
_REASONING = re.compile(rf"\s*<({'|'.join(_REASONING_TAGS)})>.*?(</\1>\s*|\Z)", re.DOTALL)
# Some templates open the block in the prompt. A tag in the midst of a line is a quotation.
_CLOSED_REASONING = re.compile(
    rf"(?:(?!<({'|'.join(_REASONING_TAGS)})>).)*?(?:\A|\n)\s*</({'|'.join(_REASONING_TAGS)})>\s*",
    re.DOTALL,
)
_REASON_KEYS = ("finish_reason", "stop_reason", "done_reason")


def finish_reason(reply: BaseMessage) -> str | None:
    """Return the provider's own word for why a reply ended, or None.

    Args:
        reply: A model's reply.

    Returns:
        The reason.
    """
    found = {**reply.response_metadata, **reply.additional_kwargs}
    return next((str(found[key]) for key in _REASON_KEYS if found.get(key)), None)


def completion_tokens(reply: BaseMessage) -> int:
    """Return the completion tokens of a reply: as reported, else estimated, at least 1.

    Args:
        reply: A model's reply.

    Returns:
        The number of tokens.
    """
    usage = reply.usage_metadata if isinstance(reply, AIMessage) else None
    if usage and usage.get("output_tokens"):
        return usage["output_tokens"]
    return max(1, count_tokens_approximately([reply], extra_tokens_per_message=0))


def is_cut_tool_call(reply: AIMessage, limit: int | None, *, tools: Collection[str]) -> bool:
    """Say whether a reply's tool call was cut, or may have been cut, by its limit.

    Args:
        reply: The teacher's reply.
        limit: The limit of the call; None for none.
        tools: Names of the tools that the call offered.

    Returns:
        True if the limit ended a reply that holds a tool call, or one that had tools and holds
        no text: some providers drop the call that they could not finish. So does the text of
        a small teacher that writes its calls as plain JSON.
    """
    reason = finish_reason(reply)
    at_limit = limit is not None and (
        reason.lower() in _STOPPED_AT_LIMIT if reason else completion_tokens(reply) >= limit
    )
    calls = reply.tool_calls or reply.invalid_tool_calls
    text = str(reply.text).strip()
    return at_limit and bool(calls or (tools and (not text or begins_call(text, tools))))


def without_reasoning(written: str) -> str:
    """Leave out the reasoning that some models write at the beginning, between ``<think>`` tags.

    A closing tag alone at the beginning of a line ends such a block, too. But for that, the
    result for a longer text begins with the result for a shorter one.

    Args:
        written: A reply, or what there is of it so far.

    Returns:
        The text after it; empty if the reasoning has not ended.
    """
    closed = _CLOSED_REASONING.match(written)
    text = written[closed.end() :] if closed else written
    while block := _REASONING.match(text):
        text = text[block.end() :]
    begun = text.strip()  # a tag may be cut in its middle
    if any(f"<{tag}>".startswith(begun) for tag in _REASONING_TAGS):
        return ""
    return text


def read(
    message: BaseMessage,
    limit: int | None,
    policy: GuidancePolicy,
    stop: list[str] | None,
    *,
    keep_reasoning: bool = False,
) -> Guidance:
    """Read a teacher's reply as guidance.

    Args:
        message: The teacher's reply.
        limit: The limit of the call, in the teacher's tokens; None for a whole answer.
        policy: Where to cut.
        stop: Stop strings of the call; text from the first one on is dropped.
        keep_reasoning: Whether `without_reasoning` is left undone.

    Returns:
        The guidance.

    Raises:
        TeacherError: If the reply holds no text.
    """
    written = str(message.text)
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    reason, count = finish_reason(message), completion_tokens(message)
    if not written.strip():
        raise TeacherError(_explain_silence(usage, reason, limit))
    complete = limit is None or (
        reason.lower() not in _STOPPED_AT_LIMIT if reason else bool(usage) and count < limit
    )
    text = written
    # An estimated count is too rough to cut by if the provider says why it stopped.
    if limit is not None and count > limit and (usage or reason is None):
        text, complete = text[: len(text) * limit // count], False
    if not keep_reasoning:
        visible = without_reasoning(text)
        if text.strip() and not visible.strip():
            raise TeacherError(
                f"the teacher wrote nothing but reasoning (<think>) inside a limit of {limit} "
                "tokens; raise guidance_tokens, or turn the teacher's reasoning off"
            )
        text = visible
    if (end := find_stop(text, stop)) is not None:
        text, complete = text[:end], True
    return Guidance(
        text=text if complete else policy.trim(text),
        token_count=count,
        finish_reason=reason,
        usage=usage,
        complete=complete,
        written=written,
    )


def _explain_silence(usage: Any, reason: str | None, limit: int | None) -> str:
    hidden = ((usage or {}).get("output_token_details") or {}).get("reasoning", 0)
    if hidden:
        return (
            f"the teacher spent {hidden} hidden reasoning tokens of a limit of {limit} and wrote "
            "no text; raise guidance_tokens, or turn the teacher's reasoning down "
            "(reasoning_effort='minimal' for OpenAI models)"
        )
    return (
        f"the teacher returned no text (finish reason: {reason}); check the teacher with "
        "mode='teacher', or set on_teacher_error='student' to go on without guidance"
    )
