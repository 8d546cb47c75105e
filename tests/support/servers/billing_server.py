"""An OpenAI-compatible server that keeps a ledger of what it bills, and fails on command.

It follows the chat completions API: ``usage`` in whole answers, and in a last chunk of its own
where a stream asks for it. Whatever it has generated is billed, read or not: a request whose
connection it drops, and a stream whose reader left. Requests it refuses cost nothing.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Six apples and four more are ten apples. Two are eaten. The answer is 8."


@dataclass(frozen=True, kw_only=True)
class RawReply:
    """A reply of bytes that are sent as they are, whatever they are.

    ``parts`` are the status line, headers and body, cut anywhere. ``end`` is how the connection
    is closed: with a reset, after ``silent`` seconds without a word, or as usual. ``billed`` are
    prompt and completion tokens; None bills nothing. ``told`` is whether the reply says so.
    """

    parts: tuple[bytes, ...] = ()
    end: str = "close"
    silent: float = 0.0
    billed: tuple[int, int] | None = None
    told: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do with one request.

    ``fail``: an HTTP status to refuse it with, or ``drop`` (bill, then hang up), or ``cut``
    (stream half, then hang up); ``retry_after`` is a header of the refusal. ``cached`` and
    ``reasoning`` are tokens; ``tier`` is the service tier answered; ``usage`` is whether usage is
    reported; ``pause`` are seconds before a whole answer, and between the chunks of a stream.
    ``raw`` makes a reply of bytes out of the request's body, in place of all this.
    """

    fail: int | str | None = None
    retry_after: str | None = None
    cached: int = 0
    reasoning: int = 0
    tier: str | None = None
    usage: bool = True
    pause: float = 0.0
    raw: Callable[[dict[str, Any]], RawReply] | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One bill: tokens, and whether the client was told."""

    model: str
    prompt: int
    cached: int
    completion: int
    reasoning: int
    tier: str | None
    told: bool


def words(text: str) -> list[str]:
    """Split into tokens of at most four characters: the server's own tokenizer."""
    return [text[i : i + 4] for i in range(0, len(text), 4)]


@dataclass
class BillingServer:
    """A server on 127.0.0.1, as a context manager."""

    answer: str = ANSWER
    plans: deque[Plan] = field(default_factory=deque)
    always: Plan = field(default_factory=Plan)
    ledger: list[Entry] = field(default_factory=list)
    refused: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0

    def __enter__(self) -> BillingServer:
        outer = self

        class Handler(_Handler):
            billing = outer

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def reset(self, *plans: Plan, always: Plan | None = None) -> None:
        self.settle()
        self.plans = deque(plans)
        self.always = always or Plan()
        self.ledger.clear()
        self.requests.clear()
        self.refused = 0

    def settle(self) -> None:
        """Wait until every request has been billed, those that nobody waits for included."""
        until = time.monotonic() + 10
        while self.busy and time.monotonic() < until:
            time.sleep(0.01)
        assert not self.busy

    def sums(self, *, told: bool | None = None) -> tuple[int, int, int, int]:
        """Return prompt, cached, completion and reasoning tokens billed."""
        self.settle()
        kept = [entry for entry in self.ledger if told is None or entry.told is told]
        names = ("prompt", "cached", "completion", "reasoning")
        return tuple(sum(getattr(entry, name) for entry in kept) for name in names)  # type: ignore[return-value]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is what the tests are about


class _Handler(BaseHTTPRequestHandler):
    billing: BillingServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        one = self.billing
        with one.lock:
            one.busy += 1
            plan = one.plans.popleft() if one.plans else one.always
        self.close_connection = True
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(one, plan, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader left; its bill is in the ledger
        finally:
            with one.lock:
                one.busy -= 1

    def _answer(self, one: BillingServer, plan: Plan, body: dict[str, Any]) -> None:
        with one.lock:
            one.requests.append(body)
        if plan.raw is not None:
            self._raw(one, body, plan.raw(body))
            return
        with one.lock:
            if isinstance(plan.fail, int):
                one.refused += 1
        if isinstance(plan.fail, int):
            error = {"message": "scripted", "type": "server_error"}
            after = {"Retry-After": plan.retry_after} if plan.retry_after else {}
            self._json({"error": error}, plan.fail, after)
            return
        said, calls = _reply(one.answer, body)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 10_000
        visible = words(said if not calls else json.dumps(calls))
        reasoning = min(plan.reasoning, limit)
        kept = visible if calls else visible[: limit - reasoning]
        prompt = len(words(json.dumps([body["messages"], body.get("tools")])))
        stream = bool(body.get("stream"))
        asked = not stream or bool((body.get("stream_options") or {}).get("include_usage"))
        entry = Entry(
            model=body["model"],
            prompt=prompt,
            cached=min(plan.cached, prompt),
            completion=len(kept) + reasoning,
            reasoning=reasoning,
            tier=plan.tier,
            told=asked and plan.usage and plan.fail is None,
        )
        reason = "tool_calls" if calls else "stop" if kept == visible else "length"
        if stream:
            self._stream(one, plan, entry, kept, calls, reason)
            return
        with one.lock:
            one.ledger.append(entry)
        time.sleep(plan.pause)
        if plan.fail:
            self._hang_up()
            return
        message = {"role": "assistant", "content": None if calls else "".join(kept)}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": reason}
        whole = {**_envelope("chat.completion", entry), "choices": [choice]}
        if plan.usage:
            whole["usage"] = _usage(entry)
        self._json(whole)

    def _raw(self, one: BillingServer, body: dict[str, Any], reply: RawReply) -> None:
        if reply.billed is not None:
            prompt, completion = reply.billed
            entry = Entry(
                model=body["model"],
                prompt=prompt,
                cached=0,
                completion=completion,
                reasoning=0,
                tier=None,
                told=reply.told,
            )
            with one.lock:
                one.ledger.append(entry)
        time.sleep(reply.silent)
        for part in reply.parts:
            self.wfile.write(part)
            self.wfile.flush()
        if reply.end == "reset":
            # A close that waits for nothing is sent as a reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _stream(
        self,
        one: BillingServer,
        plan: Plan,
        entry: Entry,
        kept: list[str],
        calls: list[dict[str, Any]],
        reason: str,
    ) -> None:
        finished = False
        base = _envelope("chat.completion.chunk", entry)
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")  # so that a cut shows
            self.send_header("Connection", "close")
            self.end_headers()
            deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
            if calls:
                deltas += [{"tool_calls": [{"index": i, **c} for i, c in enumerate(calls)]}]
            else:
                deltas += [{"content": piece} for piece in kept]
            half = len(deltas) // 2 if plan.fail == "cut" else len(deltas)
            for delta in deltas[:half]:
                self._event({**base, "choices": [{"index": 0, "delta": delta}]})
                time.sleep(plan.pause)
            if plan.fail:
                self._hang_up()
                return
            last = {"index": 0, "delta": {}, "finish_reason": reason}
            self._event({**base, "choices": [last]})
            if entry.told:
                self._event({**base, "choices": [], "usage": _usage(entry)})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
            finished = True
        finally:
            told = entry.told and finished
            with one.lock:
                one.ledger.append(Entry(**{**vars(entry), "told": told}))

    def _event(self, data: dict[str, Any]) -> None:
        self._chunk(f"data: {json.dumps(data)}\n\n".encode())

    def _chunk(self, payload: bytes) -> None:
        self.wfile.write(f"{len(payload):x}\r\n".encode() + payload + b"\r\n")
        self.wfile.flush()

    def _json(
        self, data: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("Connection", "close")  # clients share pools across event loops
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(2)


def _reply(answer: str, body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Say the answer, an object of the schema asked for, or call the first tool once."""
    tools, messages = body.get("tools") or [], body["messages"]
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    if schema:
        return json.dumps({name: 8 for name in schema["properties"]}), []
    if not tools or messages[-1]["role"] == "tool":
        return answer, []
    function = tools[0]["function"]
    arguments = {name: 4 for name in function["parameters"]["properties"]}
    named = {"name": function["name"], "arguments": json.dumps(arguments)}
    return "", [{"id": "call_1", "type": "function", "function": named}]


def _envelope(kind: str, entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1,
        "model": f"{entry.model}-2026-01-01",
    }
    return {**found, "service_tier": entry.tier} if entry.tier else found


def _usage(entry: Entry) -> dict[str, Any]:
    return {
        "prompt_tokens": entry.prompt,
        "completion_tokens": entry.completion,
        "total_tokens": entry.prompt + entry.completion,
        "prompt_tokens_details": {"cached_tokens": entry.cached},
        "completion_tokens_details": {"reasoning_tokens": entry.reasoning},
    }
