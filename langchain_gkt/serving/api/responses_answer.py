"""Answers as responses and events of the responses API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_gkt.serving.api.chat_completions import assistant_message, delta_of, finish_reason
from langchain_gkt.serving.api.responses_request import ResponsesRequest

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_EMPTY: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


class ResponsesAnswer:
    """Writes one answer for the responses API. Its methods are those of `ChatAnswer`."""

    def __init__(self, request: ResponsesRequest) -> None:
        """Begin the answer of a request. A response repeats some of its fields."""
        self._base: dict[str, Any] = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": request.model,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": request.limit,
            "metadata": {},
            "output": [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": request.temperature,
            "tool_choice": _flat(request.tool_choice) if request.tools else "auto",
            "tools": [
                {"strict": None, "parameters": None, **_flat(tool)} for tool in request.tools or ()
            ],
            "top_p": request.top_p,
            "usage": None,
        }
        self._count = 0
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the message in progress

    def whole(self, message: AIMessage, gkt: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response of a request that is not streamed."""
        answer = assistant_message(message)
        output = [_message(answer["content"])] if answer["content"] else []
        output += [_call(call) for call in answer.get("tool_calls", ())]
        return self._ended(message, gkt, output or [_message("")])

    def begin(self) -> Iterator[str]:
        """Yield the events before the first text."""
        yield self._event("response.created", response=self._base)
        yield self._event("response.in_progress", response=self._base)

    def more(self, chunk: AIMessageChunk) -> Iterator[str]:
        """Yield the events of a chunk, whose tool calls are whole."""
        delta = delta_of(chunk)
        if text := delta.get("content"):
            if self._open is None:
                self._open = {**_message(""), "status": "in_progress", "content": []}
                yield self._item("response.output_item.added", self._open)
                yield self._part("response.content_part.added", part=_EMPTY)
                self._open["content"] = [{**_EMPTY}]
            self._open["content"][0]["text"] += text
            yield self._part("response.output_text.delta", delta=text, logprobs=[])
        for call in delta.get("tool_calls", ()):
            yield from self._close()
            item = _call(call)
            arguments, where = item["arguments"], {"output_index": len(self._output)}
            where |= {"item_id": item["id"]}
            begun = {**item, "arguments": "", "status": "in_progress"}
            yield self._item("response.output_item.added", begun)
            name = "response.function_call_arguments"
            yield self._event(f"{name}.delta", **where, delta=arguments)
            yield self._event(f"{name}.done", **where, name=item["name"], arguments=arguments)
            yield self._item("response.output_item.done", item)
            self._output.append(item)

    def end(self, message: AIMessage, gkt: Mapping[str, Any]) -> Iterator[str]:
        """Yield the last events."""
        yield from self._close()
        response = self._ended(message, gkt, self._output)
        yield self._event(f"response.{response['status']}", response=response)

    def fail(self, error: Mapping[str, Any]) -> Iterator[str]:
        """Yield the events that end a stream early."""
        details = error["error"]
        fields = {name: details[name] for name in ("code", "message", "param")}
        yield self._event("error", **fields)
        why = {"code": "server_error", "message": details["message"]}
        failed = {**self._base, "status": "failed", "error": why, "output": self._output}
        yield self._event("response.failed", response=failed)

    def _ended(
        self, message: AIMessage, gkt: Mapping[str, Any], output: list[dict[str, Any]]
    ) -> dict[str, Any]:
        reason = _INCOMPLETE.get(finish_reason(message))
        return {
            **self._base,
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "output": output,
            "usage": _usage(message),
            "gkt": gkt,
        }

    def _close(self) -> Iterator[str]:
        """End the message in progress, if there is one."""
        if self._open is None:
            return
        self._open["status"] = "completed"
        part = self._open["content"][0]
        yield self._part("response.output_text.done", text=part["text"], logprobs=[])
        yield self._part("response.content_part.done", part=part)
        yield self._item("response.output_item.done", self._open)
        self._output.append(self._open)
        self._open = None

    def _item(self, kind: str, item: Mapping[str, Any]) -> str:
        return self._event(kind, output_index=len(self._output), item=item)

    def _part(self, kind: str, **fields: Any) -> str:
        assert self._open is not None
        where = {"item_id": self._open["id"], "output_index": len(self._output)}
        return self._event(kind, **where, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> str:
        data = json.dumps({"type": kind, "sequence_number": self._count, **fields})
        self._count += 1
        return f"event: {kind}\ndata: {data}\n\n"


def _message(text: str) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{**_EMPTY, "text": text}],
    }


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"fc_{uuid.uuid4().hex}",
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        **call["function"],
    }


def _flat(value: Any) -> Any:
    """Put the fields of a function side by side with its type, as in this API."""
    if not isinstance(value, dict):
        return value or "auto"
    return {"type": "function", **value["function"]}


def _usage(message: AIMessage) -> dict[str, Any] | None:
    usage = message.usage_metadata
    if not usage:
        return None
    read = usage.get("input_token_details") or {}
    written = usage.get("output_token_details") or {}
    cached = {"cached_tokens": read.get("cache_read") or 0}
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {**cached, "cache_write_tokens": read.get("cache_creation") or 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": written.get("reasoning") or 0},
        "total_tokens": usage["total_tokens"],
    }
