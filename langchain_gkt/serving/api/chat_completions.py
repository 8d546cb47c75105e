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


class ChatAnswer:
    """Writes one answer for the chat completions API."""

    def __init__(self, model: str, *, include_usage: bool) -> None:
        """Begin an answer of a model. A stream may end with its usage."""
        self._base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            **({"usage": None} if include_usage else {}),
        }
        self._include_usage, self._calls = include_usage, 0

    def whole(self, message: AIMessage, gkt: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the response of a request that is not streamed."""
        choice = {"message": assistant_message(message), "finish_reason": finish_reason(message)}
        return {
            **self._base,
            "object": "chat.completion",
            "choices": [{"index": 0, "logprobs": None, **choice}],
            "usage": _usage(message.usage_metadata),
            **_described(gkt),
        }

    def begin(self) -> Iterator[str]:
        """Yield the events before the first text."""
        yield self._event({"role": "assistant", "content": ""})

    def more(self, chunk: AIMessageChunk) -> Iterator[str]:
        """Yield the events of a chunk, whose tool calls are whole."""
        if delta := delta_of(chunk, calls_before=self._calls):
            self._calls += len(delta.get("tool_calls", ()))
            yield self._event(delta)

    def end(self, message: AIMessage, gkt: Mapping[str, Any] | None) -> Iterator[str]:
        """Yield the last events."""
        reason = finish_reason(message)
        if self._include_usage:
            yield self._event({}, reason)
            last = {"choices": [], "usage": _usage(message.usage_metadata), **_described(gkt)}
            yield _data({**self._base, **last})
        else:
            yield self._event({}, reason, **_described(gkt))
        yield "data: [DONE]\n\n"

    def fail(self, error: Mapping[str, Any]) -> Iterator[str]:
        """Yield the event that ends a stream early."""
        yield _data(error)

    def _event(self, delta: Mapping[str, Any], reason: str | None = None, **fields: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _data({**self._base, "choices": [choice], **fields})


def finish_reason(message: AIMessage) -> str:
    """Return why an answer ended, in OpenAI's words."""
    reported = str(message.response_metadata.get("finish_reason") or "stop").lower()
    reason = _REASONS.get(reported, reported)
    called = message.tool_calls or message.invalid_tool_calls
    return "tool_calls" if called and reason == "stop" else reason


def assistant_message(answer: AIMessage) -> dict[str, Any]:
    """Return an answer as the API's message. Arguments of a broken call stay as written."""
    calls = [_tool_call(c["id"], c["name"], json.dumps(c["args"])) for c in answer.tool_calls]
    calls += [_tool_call(c["id"], c["name"], c["args"]) for c in answer.invalid_tool_calls]
    message = {"role": "assistant", "content": str(answer.text) or (None if calls else "")}
    return {**message, "tool_calls": calls} if calls else message


def delta_of(chunk: AIMessageChunk, *, calls_before: int = 0) -> dict[str, Any]:
    """Return a chunk's addition to the message. Empty if it adds nothing."""
    delta: dict[str, Any] = {}
    if text := str(chunk.text):
        delta["content"] = text
    if chunk.tool_call_chunks:
        delta["tool_calls"] = [
            {"index": index, **_tool_call(call["id"], call["name"], call["args"])}
            for index, call in enumerate(chunk.tool_call_chunks, calls_before)
        ]
    return delta


def _tool_call(call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _usage(usage: UsageMetadata | None) -> dict[str, Any] | None:
    if not usage:
        return None
    cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _described(gkt: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if gkt is None else {"gkt": gkt}


def _data(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
