"""Replies of a faulty provider that the chat completions API is spoken to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from support.servers.billing_server import Plan, RawReply

TEXT = "Six apples and four"
BILLED = (9, 5)
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
MEGABYTES = 5_000_000


def http(
    body: bytes | str | Any,
    status: int = 200,
    *,
    kind: str = "application/json",
    headers: Iterable[str] = (),
    length: int | None = None,
    billed: bool | None = None,
    told: bool = False,
    end: str = "close",
) -> RawReply:
    """A reply of HTTP; a body that is no bytes is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {kind}", "Connection: close", *headers]
    lines.append(f"Content-Length: {len(data) if length is None else length}")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    paid = status == 200 if billed is None else billed
    return RawReply(parts=(head, data), end=end, billed=BILLED if paid else None, told=told)


def completion(**changes: Any) -> dict[str, Any]:
    """A whole answer; a change to ``...`` leaves the field out."""
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    for name, parts in (("message", message), ("choice", choice)):
        _change(parts, changes.pop(name, {}))
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [choice],
        "usage": USAGE,
    }
    return _change(whole, changes)


def _change(parts: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    parts.update(changes)
    for name in [name for name, value in parts.items() if value is ...]:
        del parts[name]
    return parts


def chunk(delta: Any, **changes: Any) -> dict[str, Any]:
    """A chunk of a stream."""
    choice = _change({"index": 0, "delta": delta, "finish_reason": None}, changes.pop("choice", {}))
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [choice],
    }
    return _change(whole, changes)


BEGIN = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Six apples"})]
REST = [chunk({"content": " and four"}), chunk({}, choice={"finish_reason": "length"})]
LAST = chunk({}, choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def sse(*events: Any, told: bool = True, done: bool = True, end: str = "close") -> RawReply:
    """A stream of events: bytes as they are, others as JSON."""
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Connection: close"]
    if end == "cut":
        lines.append("Content-Length: 1000000")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    parts = [e if isinstance(e, bytes) else f"data: {json.dumps(e)}\n\n".encode() for e in events]
    parts += [DONE] if done else []
    return RawReply(
        parts=(head, *parts), billed=BILLED, told=told, end="reset" if end == "reset" else "close"
    )


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault: the reply to a request for a whole answer, and to one for a stream.

    A ``stream`` of None is the same reply.
    """

    name: str
    whole: RawReply
    stream: RawReply | None = None

    @property
    def plan(self) -> Plan:
        return Plan(raw=lambda body: (self.stream if body.get("stream") else None) or self.whole)
