"""Answers as responses and events of the chat completions API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata

_REASONS = {
    "end_turn": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}
"""Other providers' finish reasons, in lower case, and OpenAI's names for them."""

DONE = "data: [DONE]\n\n"
"""The last event of a stream."""


def common_fields(kind: str, model: str) -> dict[str, Any]:
    """Return the fields that every response has.

    Args:
        kind: ``chat.completion`` or ``chat.completion.chunk``.
        model: The name of the model.
    """
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def usage_fields(usage: UsageMetadata | None) -> dict[str, Any] | None:
    """Return usage as the API reports it.

    Args:
        usage: LangChain's usage metadata.

    Returns:
        Its tokens; None if they are not known.
    """
    if not usage:
        return None
    cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def finish_reason(message: AIMessage) -> str:
    """Return why an answer ended, in OpenAI's words.

    Args:
        message: The answer, or its last chunk.
    """
    found = str(message.response_metadata.get("finish_reason") or "stop").lower()
    reason = _REASONS.get(found, found)
    called = message.tool_calls or message.invalid_tool_calls
    return "tool_calls" if called and reason == "stop" else reason


def assistant_message(answer: AIMessage) -> dict[str, Any]:
    """Return an answer as the API's message.

    Args:
        answer: The answer; arguments of a broken tool call are passed on as they were written.
    """
    calls = [_tool_call(c["id"], c["name"], json.dumps(c["args"])) for c in answer.tool_calls]
    calls += [_tool_call(c["id"], c["name"], c["args"]) for c in answer.invalid_tool_calls]
    message = {"role": "assistant", "content": str(answer.text) or (None if calls else "")}
    return {**message, "tool_calls": calls} if calls else message


def delta_of(chunk: AIMessageChunk) -> dict[str, Any]:
    """Return what a chunk adds to the message; nothing if it adds nothing.

    Args:
        chunk: A chunk of a stream; its tool calls are whole.
    """
    delta: dict[str, Any] = {}
    if text := str(chunk.text):
        delta["content"] = text
    if chunk.tool_call_chunks:
        delta["tool_calls"] = [
            {"index": index, **_tool_call(call["id"], call["name"], call["args"])}
            for index, call in enumerate(chunk.tool_call_chunks)
        ]
    return delta


def choice_of(delta: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
    """Return the one choice of a chunk.

    Args:
        delta: What the chunk adds.
        reason: Why the answer ended; None if it goes on.
    """
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def whole_choice(answer: AIMessage) -> dict[str, Any]:
    """Return the one choice of a response that is not streamed.

    Args:
        answer: The answer.
    """
    return {
        "index": 0,
        "message": assistant_message(answer),
        "logprobs": None,
        "finish_reason": finish_reason(answer),
    }


def event(data: Mapping[str, Any]) -> str:
    """Return a server-sent event.

    Args:
        data: Its data.
    """
    return f"data: {json.dumps(data)}\n\n"


def _tool_call(call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


class ChatAnswer:
    """Writes one answer as the chat completions API does."""

    def __init__(self, model: str, *, include_usage: bool) -> None:
        """Begin an answer.

        Args:
            model: The name of the model.
            include_usage: Whether a stream ends with the usage.
        """
        self._model, self._include_usage = model, include_usage
        self._base = common_fields("chat.completion.chunk", model)
        if include_usage:
            self._base["usage"] = None

    def whole(self, message: AIMessage, gkt: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response of a request that is not streamed.

        Args:
            message: The answer.
            gkt: What the chain says of it.
        """
        return {
            **common_fields("chat.completion", self._model),
            "choices": [whole_choice(message)],
            "usage": usage_fields(message.usage_metadata),
            "gkt": gkt,
        }

    def begin(self) -> Iterator[str]:
        """Yield the events before the first text."""
        begun = {"role": "assistant", "content": ""}
        yield event({**self._base, "choices": [choice_of(begun, None)]})

    def more(self, chunk: AIMessageChunk) -> Iterator[str]:
        """Yield the events of a chunk.

        Args:
            chunk: What is added; its tool calls are whole.
        """
        if delta := delta_of(chunk):
            yield event({**self._base, "choices": [choice_of(delta, None)]})

    def end(self, message: AIMessage, gkt: Mapping[str, Any]) -> Iterator[str]:
        """Yield the last events.

        Args:
            message: The whole answer.
            gkt: What the chain says of it.
        """
        ended = {**self._base, "choices": [choice_of({}, finish_reason(message))]}
        if self._include_usage:
            yield event(ended)
            usage = usage_fields(message.usage_metadata)
            yield event({**self._base, "choices": [], "usage": usage, "gkt": gkt})
        else:
            yield event({**ended, "gkt": gkt})
        yield DONE

    def fail(self, error: Mapping[str, Any]) -> Iterator[str]:
        """Yield the event that ends a stream early.

        Args:
            error: The body of the error.
        """
        yield event(error)
