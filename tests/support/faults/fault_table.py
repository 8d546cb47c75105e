"""The table of faults: connections, statuses, bodies, choices, usage and streams."""

from __future__ import annotations

import gzip
import json
from typing import Any

from support.faults.faults import (
    BEGIN,
    BILLED,
    DONE,
    LAST,
    MEGABYTES,
    REST,
    TEXT,
    USAGE,
    Fault,
    chunk,
    completion,
    http,
    sse,
)
from support.servers.billing_server import RawReply

GOOD = json.dumps(completion()).encode()
HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
MESSAGE = {"error": {"message": "scripted", "type": "error", "code": None, "param": None}}
DEEP = b"[" * 100_000 + b"]" * 100_000


def _error(code: str, message: str = "scripted") -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


def _raw(*parts: bytes, end: str = "close", billed: bool = True, silent: float = 0.0) -> RawReply:
    return RawReply(parts=parts, end=end, billed=BILLED if billed else None, silent=silent)


CONNECTIONS = [
    Fault(name="hangs up without a word", whole=_raw()),
    Fault(name="reset without a word", whole=_raw(end="reset")),
    Fault(name="reset in the headers", whole=_raw(b"HTTP/1.1 200 OK\r\nConte", end="reset")),
    Fault(name="reset in the body", whole=http(GOOD[:40], length=len(GOOD), end="reset")),
    Fault(name="status line cut", whole=_raw(b"HTTP/1.1 2")),
    Fault(name="headers cut", whole=_raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl")),
    Fault(name="not HTTP", whole=_raw(b"SSH-2.0-OpenSSH_9.9\r\n")),
    Fault(name="HTTP/0.9", whole=_raw(GOOD)),
    Fault(name="a huge header", whole=http(GOOD, headers=["X-Big: " + "x" * 200_000])),
    Fault(name="a broken header", whole=http(GOOD, headers=["no colon here"])),
    Fault(name="body shorter than said", whole=http(GOOD, length=len(GOOD) + 100)),
    Fault(name="body longer than said", whole=http(GOOD, length=len(GOOD) - 40)),
    Fault(
        name="broken chunked encoding",
        whole=_raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            b"\r\nzz\r\n" + GOOD
        ),
    ),
    Fault(
        name="chunked encoding cut",
        whole=_raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            b"\r\nff\r\n" + GOOD[:80]
        ),
    ),
    Fault(name="no gzip inside", whole=http(GOOD, headers=["Content-Encoding: gzip"])),
    Fault(
        name="gzip cut",
        whole=http(gzip.compress(GOOD)[:60], headers=["Content-Encoding: gzip"]),
    ),
    Fault(name="silence", whole=_raw(silent=0.5)),
    Fault(name="redirected to itself", whole=http(b"", 307, headers=["Location: /v1/chat"])),
    Fault(name="redirected to nowhere", whole=http(b"", 302)),
    Fault(name="no content", whole=http(b"", 204, billed=True)),
]

STATUSES = [
    *(
        Fault(name=f"status {status}", whole=http(MESSAGE, status))
        for status in (400, 402, 403, 404, 405, 408, 409, 413, 415, 422, 425, 451)
    ),
    *(
        Fault(name=f"status {status}", whole=http(MESSAGE, status))
        for status in (500, 501, 502, 503, 504, 520, 529, 599)
    ),
    Fault(name="status 401", whole=http(_error("invalid_api_key"), 401)),
    Fault(name="status 429", whole=http(_error("rate_limit_exceeded"), 429)),
    Fault(name="429, Retry-After", whole=http(MESSAGE, 429, headers=["Retry-After: 7"])),
    Fault(
        name="429, Retry-After a date",
        whole=http(MESSAGE, 429, headers=["Retry-After: Wed, 21 Oct 2099 07:28:00 GMT"]),
    ),
    Fault(
        name="429, Retry-After nonsense",
        whole=http(MESSAGE, 429, headers=["Retry-After: soon"]),
    ),
    Fault(name="429, quota used up", whole=http(_error("insufficient_quota"), 429)),
    Fault(name="503, Retry-After", whole=http(MESSAGE, 503, headers=["Retry-After: 3"])),
    Fault(name="400, prompt too long", whole=http(_error("context_length_exceeded"), 400)),
    Fault(name="404, no such model", whole=http(_error("model_not_found"), 404)),
    Fault(name="502 as HTML", whole=http(HTML, 502, kind="text/html")),
    Fault(name="500 without a body", whole=http(b"", 500)),
    Fault(name="500, broken JSON", whole=http(b'{"error": {"mess', 500)),
    Fault(name="500, bad UTF-8", whole=http(b"\xff\xfe\xfa", 500)),
    Fault(name="400 of 5 MB", whole=http(_error("x", "m" * MEGABYTES), 400)),
    Fault(name="500, error is a string", whole=http({"error": "down"}, 500)),
    Fault(name="500, error is null", whole=http({"error": None}, 500)),
    Fault(name="500, a list", whole=http([MESSAGE], 500)),
]

BODIES = [
    Fault(name="empty body", whole=http(b"")),
    Fault(name="blank body", whole=http(b"  \n ")),
    Fault(name="broken JSON", whole=http(GOOD.replace(b'":', b'"', 3))),
    Fault(name="JSON cut", whole=http(GOOD[:90])),
    Fault(name="JSON and more", whole=http(GOOD + b"}}")),
    Fault(name="bad UTF-8", whole=http(GOOD.replace(b"apples", b"\xff\xfe"))),
    Fault(name="UTF-16", whole=http(GOOD.decode().encode("utf-16"))),
    Fault(name="a byte order mark", whole=http(b"\xef\xbb\xbf" + GOOD)),
    Fault(name="HTML", whole=http(HTML, kind="text/html")),
    Fault(name="HTML said to be JSON", whole=http(HTML)),
    Fault(name="JSON said to be text", whole=http(GOOD, kind="text/plain")),
    Fault(name="no content type", whole=http(GOOD, kind="")),
    Fault(name="null", whole=http(None)),
    Fault(name="a list", whole=http([])),
    Fault(name="a number", whole=http(3)),
    Fault(name="a string", whole=http("hello")),
    Fault(name="an empty object", whole=http({})),
    Fault(name="200 with an error", whole=http(MESSAGE)),
    Fault(name="nested too deep", whole=http(DEEP)),
    Fault(name="a number of 5,000 digits", whole=http(GOOD.replace(b": 14", b": " + b"9" * 5_000))),
    Fault(name="5 MB of nothing", whole=http(b"x" * MEGABYTES)),
    Fault(name="5 MB of HTML", whole=http(b"<" * MEGABYTES, kind="text/html")),
]


def _both(name: str, *, stream: Any = None, **changes: Any) -> Fault:
    """A fault of a field; ``stream`` are the events that have it, too."""
    return Fault(
        name=name, whole=http(completion(**changes), told=True), stream=stream and sse(*stream)
    )


def _delta(value: Any) -> list[Any]:
    return [*BEGIN, chunk(value), *REST, LAST]


def _choices(value: Any) -> list[Any]:
    return [*BEGIN, chunk({}, choices=value), *REST, LAST]


def _call(**changes: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    return {"index": 0, "id": "1", "type": "function", "function": function, **changes}


FIELDS = [
    *(
        _both(f"choices: {json.dumps(value)}", choices=value, stream=_choices(value))
        for value in (None, [], [None], [{}], {}, "x", 3)
    ),
    _both("choices missing", choices=..., stream=[*BEGIN, chunk({}, choices=...), *REST, LAST]),
    *(
        _both(f"message: {json.dumps(value)}", choice={"message": value}, stream=_delta(value))
        for value in (None, "x", [], {})
    ),
    _both("message missing", choice={"message": ...}),
    *(
        _both(
            f"content: {json.dumps(value)}",
            message={"content": value},
            stream=[*BEGIN, chunk({"content": value}), *REST, LAST],
        )
        for value in (None, 3, [], {}, [{"type": "text", "text": TEXT}], [3], "\ud83d", "a\0b")
    ),
    _both("content missing", message={"content": ...}),
    _both("empty content", message={"content": ""}, stream=[BEGIN[0], REST[1], LAST]),
    _both("blank content", message={"content": " \n "}, stream=[chunk({"content": " "}), LAST]),
    _both("role missing", message={"role": ...}),
    *(
        _both(f"role: {json.dumps(role)}", message={"role": role}, stream=_delta({"role": role}))
        for role in (None, "robot", "user", 3)
    ),
    *(
        _both(
            f"finish reason: {json.dumps(value)}",
            choice={"finish_reason": value},
            stream=[*BEGIN, REST[0], chunk({}, choice={"finish_reason": value}), LAST],
        )
        for value in (None, "", "eos", "exploded", 3, ["stop"])
    ),
    _both("finish reason missing", choice={"finish_reason": ...}, stream=[*BEGIN, REST[0], LAST]),
    _both("index missing", choice={"index": ...}),
    *(
        _both(
            f"tool calls: {json.dumps(value)[:120]}",
            message={"tool_calls": value},
            stream=_delta({"tool_calls": value}),
        )
        for value in (
            None,
            [],
            "x",
            [None],
            [{}],
            [_call(function=None)],
            [_call(function={"name": None, "arguments": "{}"})],
            [_call(function={"name": "f", "arguments": "{bro"})],
            [_call(id=None)],
        )
    ),
    _both("id null", id=None),
    _both("model null", model=None),
    _both("model missing", model=...),
    _both("created a string", created="yesterday"),
    _both("object of another kind", object="list"),
    _both("no envelope", id=..., object=..., created=..., model=...),
]

_ODD: list[Any] = [
    None,
    {},
    [],
    "14",
    14,
    True,
    {**USAGE, "completion_tokens": -5},
    {**USAGE, "prompt_tokens": -5},
    {**USAGE, "completion_tokens": 10**12},
    {**USAGE, "prompt_tokens": 10**12},
    {**USAGE, "completion_tokens": 10**400},
    {**USAGE, "completion_tokens": 5.0},
    {**USAGE, "completion_tokens": 5.5},
    {**USAGE, "completion_tokens": float("nan")},
    {**USAGE, "completion_tokens": float("inf")},
    {**USAGE, "completion_tokens": "5"},
    {**USAGE, "completion_tokens": "many"},
    {**USAGE, "completion_tokens": True},
    {**USAGE, "completion_tokens": None},
    {**USAGE, "completion_tokens": [5]},
    {**USAGE, "completion_tokens": {"n": 5}},
    {"total_tokens": 14},
    {"prompt_tokens": 9, "total_tokens": 14},
    {"prompt_tokens": 9, "completion_tokens": 5},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {**USAGE, "completion_tokens": 0},
    {**USAGE, "total_tokens": 3},
    {**USAGE, "total_tokens": "x"},
    {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None},
    {**USAGE, "prompt_tokens_details": "x"},
    {**USAGE, "prompt_tokens_details": []},
    {**USAGE, "prompt_tokens_details": {"cached_tokens": -3}},
    {**USAGE, "prompt_tokens_details": {"cached_tokens": "3"}},
    {**USAGE, "prompt_tokens_details": {"cached_tokens": 10**9}},
    {**USAGE, "completion_tokens_details": {"reasoning_tokens": 10**9}},
    {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2.5}},
    {**USAGE, "completion_tokens_details": {"reasoning_tokens": -1}},
]


def _named(usage: Any) -> str:
    text = json.dumps(usage)
    return text if len(text) < 160 else f"{text[:100]}..."


USAGES = [
    _both("usage missing", usage=..., stream=[*BEGIN, *REST]),
    *(
        _both(
            f"usage: {_named(usage)}",
            usage=usage,
            stream=[*BEGIN, *REST, chunk({}, choices=[], usage=usage)],
        )
        for usage in _ODD
    ),
]


def _stream(name: str, *events: Any, **options: Any) -> Fault:
    """A fault that only a stream can have; whole answers are good."""
    return Fault(name=name, whole=http(completion(), told=True), stream=sse(*events, **options))


_EVENT = f"data: {json.dumps(REST[0])}\n\n".encode()

STREAMS = [
    _stream("no [DONE]", *BEGIN, *REST, LAST, done=False),
    _stream("no event at all", done=False),
    _stream("[DONE] alone"),
    _stream("comments alone", *[b": keep-alive\n\n"] * 20, done=False),
    _stream("comments between", b": a\n\n", *BEGIN, b": b\n\n", *REST, LAST),
    _stream("cut in an event", *BEGIN, _EVENT[:30], done=False),
    _stream("connection cut", *BEGIN, REST[0], done=False, end="cut"),
    _stream("connection cut at once", done=False, end="cut"),
    _stream("connection reset", *BEGIN, REST[0], done=False, end="reset"),
    _stream("broken JSON first", b"data: {bro\n\n", done=False),
    _stream("broken JSON later", *BEGIN, b"data: {bro\n\n", *REST, LAST),
    _stream("null event", *BEGIN, None, *REST, LAST),
    _stream("list event", *BEGIN, [], *REST, LAST),
    _stream("empty object", *BEGIN, {}, *REST, LAST),
    _stream("error first", MESSAGE),
    _stream("error later", *BEGIN, MESSAGE),
    _stream("error is a string", *BEGIN, {"error": "overloaded"}),
    _stream("error of 5 MB", *BEGIN, _error("x", "m" * MEGABYTES)),
    _stream("named error event", *BEGIN, b'event: error\ndata: {"message": "x"}\n\n'),
    _stream("bad UTF-8", *BEGIN, b'data: {"choices": "\xff\xfe"}\n\n', *REST, LAST),
    _stream("carriage returns", *BEGIN, _EVENT.replace(b"\n", b"\r\n"), REST[1], LAST),
    _stream("no blank behind data", *BEGIN, _EVENT.replace(b"data: ", b"data:"), REST[1], LAST),
    _stream("text behind the end", *BEGIN, *REST, chunk({"content": " more"}), LAST),
    _stream("events behind [DONE]", *BEGIN, *REST, LAST, DONE, *REST),
    _stream("two ends", *BEGIN, *REST, REST[1], LAST),
    _stream("usage in every chunk", *[{**one, "usage": USAGE} for one in (*BEGIN, *REST)]),
    _stream("usage without an end", *BEGIN, LAST),
    _stream("usage twice", *BEGIN, *REST, LAST, LAST),
    _stream("no usage", *BEGIN, *REST),
    _stream("other ids", *BEGIN, *[{**one, "id": "other"} for one in REST], LAST),
    _stream("other index", *BEGIN, chunk({"content": "x"}, choice={"index": 1}), *REST, LAST),
    _stream("half a character", *BEGIN, chunk({"content": "\ud83d"}), *REST, LAST),
    _stream("a character in two", chunk({"content": "\ud83d"}), chunk({"content": "\ude00"}), LAST),
    _stream("5 MB in one event", *BEGIN, chunk({"content": "x" * MEGABYTES}), *REST, LAST),
    Fault(name="a whole answer", whole=http(completion(), told=True), stream=http(completion())),
    Fault(
        name="HTML for a stream",
        whole=http(completion(), told=True),
        stream=http(HTML, kind="text/html"),
    ),
]

FAULTS = {
    "connection": CONNECTIONS,
    "status": STATUSES,
    "body": BODIES,
    "field": FIELDS,
    "usage": USAGES,
    "stream": STREAMS,
}
"""All kinds, by where they are."""
