"""Reads a teacher's reply: why it ended, its cost, and the guidance in it."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from langchain_gkt.errors import GuidanceError
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.metadata import from_cache
from langchain_gkt.providers.usage import believable, completed
from langchain_gkt.texts.reasoning import without_reasoning
from langchain_gkt.texts.stop_strings import find_stop

STOPPED_AT_LIMIT = {"length", "max_tokens", "max_output_tokens", "model_length", "max_length"}
"""Providers' words for a reply that its limit has truncated."""
_FINISHED = {
    "stop",
    "end_turn",
    "stop_sequence",
    "eos",
    "eos_token",
    "complete",
    "completed",
    "done",
    "finished",
    "tool_calls",
    "tool_use",
    "function_call",
}
_REASON_KEYS = ("finish_reason", "stop_reason", "done_reason")
_CHARS_PER_TOKEN = 4
"""The same estimate as in langchain-core."""


def finish_reason(reply: BaseMessage) -> str | None:
    """Return the provider's own reason for a reply's end, or None."""
    metadata = {**reply.response_metadata, **reply.additional_kwargs}
    reason = next((str(metadata[key]) for key in _REASON_KEYS if metadata.get(key)), None)
    for word in STOPPED_AT_LIMIT | _FINISHED:
        # Chunks that say it twice are joined.
        if reason and reason == word * (len(reason) // len(word)):
            return word
    return reason


def believed(reply: AIMessage) -> tuple[AIMessage, str | None]:
    """Remove impossible values from a reply: absurd usage, and halves of characters.

    Also returns the refused part of its usage, or None.
    """
    reported, text = getattr(reply, "usage_metadata", None), str(reply.text)
    usage, refused = reported, None
    if not from_cache(reported):
        wrote = bool(text or reply.tool_calls or reply.invalid_tool_calls)
        completed_usage = completed(reported, reply.response_metadata)
        usage, refused = believable(completed_usage, wrote=wrote, chars=len(text))
    update: dict[str, Any] = {} if usage == reported else {"usage_metadata": usage}
    if isinstance(reply.content, str) and (whole := whole_characters(text)) != text:
        update["content"] = whole
    return reply.model_copy(update=update) if update else reply, refused


def whole_characters(text: str, *, growing: bool = False) -> str:
    """Join the halves of characters that a provider sent one by one, and replace single ones.

    In a growing text, the other half of the last character may follow.
    """
    if growing and "\ud800" <= text[-1:] <= "\udbff":
        text = text[:-1]
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def completion_tokens(reply: BaseMessage) -> int:
    """Return the completion tokens of a reply: as reported, else estimated, at least 1."""
    usage = reply.usage_metadata if isinstance(reply, AIMessage) else None
    if usage and usage.get("output_tokens"):
        return usage["output_tokens"]
    return max(1, count_tokens_approximately([reply], extra_tokens_per_message=0))


def _is_finished(reason: str | None, usage: Any, count: int, limit: int | None) -> bool:
    """Whether a reply ended by itself. An unknown reason counts unless all tokens are used."""
    if limit is None:
        return True
    if reason is None:
        return bool(usage) and count < limit
    word = reason.lower()
    return word not in STOPPED_AT_LIMIT and (word in _FINISHED or count < limit)


def _longest(text: str, usage: Any, count: int, limit: int) -> int:
    """Return how many characters of a reply fit into its limit."""
    if usage:
        return len(text) * limit // max(limit, count)
    # A token holds one word at most. By characters only a clear excess is too long.
    words = list(islice(re.finditer(r"\S+", text), limit + 1))
    if len(words) > limit:
        return min(words[-1].start(), _CHARS_PER_TOKEN * limit)
    doubt = _CHARS_PER_TOKEN * (2 * limit + 16)
    return len(text) if len(text) <= doubt else _CHARS_PER_TOKEN * limit


def explain_ignored_limit(guidance: Guidance, limit: int | None) -> tuple[str, str] | None:
    """Return a key and a text to warn that a teacher has ignored its limit, or None."""
    usage, count, written = guidance.usage, guidance.token_count, guidance.written
    if limit is None or _longest(written, usage, count, limit) == len(written):
        return None
    if usage and count > limit:
        key, much, paid = "ignored-limit", f"{count} tokens", "they are paid for"
    else:
        about = max(1, len(written) // _CHARS_PER_TOKEN)
        key, much = "ignored-limit-unreported", f"about {about} tokens, as we estimate,"
        paid = "what its provider bills is not known"
    return key, (
        f"the teacher wrote {much} although it was asked for at most {limit}; {paid}. Its server "
        "may know the limit by another name: see teacher_limit_param."
    )


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
        limit: The limit of the call, in the teacher's tokens. None for a whole answer.
        policy: Where to cut.
        stop: Stop strings of the call. Text from the first one on is dropped.
        keep_reasoning: Whether to skip `without_reasoning`.

    Raises:
        GuidanceError: If the reply holds no text.
    """
    written = str(message.text)
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    reason, count = finish_reason(message), completion_tokens(message)
    if not written.strip():
        raise _silence(usage, reason, limit)
    complete = _is_finished(reason, usage, count, limit)
    text = written
    if limit is not None and (most := _longest(text, usage, count, limit)) < len(text):
        text, complete = text[:most], False
    if not keep_reasoning:
        visible = without_reasoning(text)
        if text.strip() and not visible.strip():
            raise GuidanceError(
                f"the teacher wrote nothing but reasoning (<think>) inside a limit of {limit} "
                "tokens",
                hint="raise guidance_tokens, or turn the teacher's reasoning off",
            )
        text = visible
    if (end := find_stop(text, stop)) is not None:
        text, complete = text[:end], True
    return Guidance(
        text=text if complete else policy.trim(text),
        token_count=count,
        estimated=not usage,
        finish_reason=reason,
        usage=usage,
        complete=complete,
        written=written,
        logprob=_first_logprob(message),
    )


def _first_logprob(message: BaseMessage) -> float | None:
    """Return the log-probability of a reply's first token, from OpenAI's form of reports."""
    try:
        return float(message.response_metadata["logprobs"]["content"][0]["logprob"])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _silence(usage: Any, reason: str | None, limit: int | None) -> GuidanceError:
    hidden = ((usage or {}).get("output_token_details") or {}).get("reasoning", 0)
    if hidden:
        return GuidanceError(
            f"the teacher spent {hidden} hidden reasoning tokens of a limit of {limit} and wrote "
            "no text",
            hint="raise guidance_tokens, or turn the teacher's reasoning down "
            "(reasoning_effort='minimal' for OpenAI models)",
        )
    return GuidanceError(
        f"the teacher returned no text (finish reason: {reason})", hint=GuidanceError.hint
    )
