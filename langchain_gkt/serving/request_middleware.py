"""The first check of every request: its id, its key, its size and its record."""

from __future__ import annotations

import asyncio
import ctypes
import re
import time
import uuid
from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_gkt.serving.errors import APIError, as_api_error
from langchain_gkt.serving.keys import KeyRing
from langchain_gkt.serving.metrics import Metrics
from langchain_gkt.serving.records import RequestRecord, log

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_PORT = re.compile(r"(?<=[^:]):\d+$")
_QUIET = ("/health", "/metrics")
_LARGE_BYTES = 2**17
"""Bytes of a body whose tokens take so much memory that it is given back at once."""
_MOST_UNREAD_BYTES = 2**26
"""Bytes of an oversized body that are read and dropped, so that its sender reads the answer."""


class RequestMiddleware:
    """ASGI middleware: refuses requests before reading them, and records how each ended."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        metrics: Metrics,
        max_body_bytes: int,
        read_seconds: float,
        allowed_hosts: Sequence[str],
    ) -> None:
        """Guard an application. See `app.build_app` for the limits."""
        self.allowed_hosts = [host.lower() for host in allowed_hosts]
        self.app, self.keys, self.metrics = app, keys, metrics
        self.max_body_bytes, self.read_seconds = max_body_bytes, read_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), False
        own_id = headers.get("x-request-id", "")
        record = RequestRecord(
            request_id=own_id if _REQUEST_ID.fullmatch(own_id) else uuid.uuid4().hex,
            method=scope["method"],
            path=scope["path"] if scope["path"] in _QUIET else _known(scope["path"]),
        )

        async def send_with_id(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                record.status = message["status"]
                own = (b"x-request-id", record.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["record"] = record
        is_quiet = record.path in _QUIET
        try:
            self._check_host(headers.get("host", ""))
            if not is_quiet:
                self.metrics.begin(record)
                receive = await self._admit(scope, headers, receive, record)
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            record.note_error(error)
            if not began:
                await as_api_error(error).response()(scope, receive, send_with_id)
        finally:
            record.seconds = time.monotonic() - record.started
            if not is_quiet:
                self.metrics.observe(record)
                log("request", **record.to_dict())
            if record.body_bytes > _LARGE_BYTES:
                asyncio.get_running_loop().run_in_executor(None, _release_freed_memory)

    def _check_host(self, host: str) -> None:
        """Refuse a host name that a web page may have pointed at this machine."""
        name = _PORT.sub("", host.lower())
        if not any(
            allowed in ("*", name) or (allowed[:2] == "*." and name.endswith(allowed[1:]))
            for allowed in self.allowed_hosts
        ):
            raise APIError(
                400,
                f"the Host {name[:100]!r} is none of this server's names; ask it under another, or "
                "have it started with --allowed-hosts",
                code="unknown_host",
            )

    async def _admit(
        self, scope: Scope, headers: Headers, receive: Receive, record: RequestRecord
    ) -> Receive:
        """Refuse a request, or return the source of its body."""
        client = self.keys.authenticate(headers.get("authorization"))
        record.client = client.key.name
        scope["state"]["client"] = client
        if scope["method"] != "POST":
            return receive
        client.count_request()
        if (encoding := headers.get("content-encoding", "").lower()) not in ("", "identity"):
            raise APIError(
                415,
                f"the body is encoded ({encoding[:20]}); send it as it is, without "
                "Content-Encoding",
                code="unsupported_encoding",
            )
        body = await self._read(headers, receive)
        record.body_bytes = len(body)
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        return replay

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """Read the body, up to its limit. The rest is read and dropped."""
        most, deadline = self.max_body_bytes, time.monotonic() + self.read_seconds
        length = headers.get("content-length", "")
        # A client that asks whether to send its body at all needs only the answer.
        if length.isdigit() and int(length) > most and "expect" in headers:
            raise self._too_large()
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= max(most, _MOST_UNREAD_BYTES):
            try:
                left = max(0.0, deadline - time.monotonic())
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                if size > most:
                    break
                raise APIError(
                    408,
                    f"the body did not come within {self.read_seconds:g} seconds; send it faster",
                    code="request_timeout",
                    headers={"Connection": "close"},
                ) from None
            if message["type"] == "http.disconnect":
                raise APIError(400, "the client went away before its request was read")
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > most:
                parts.clear()
            else:
                parts.append(message.get("body", b""))
        if size > most:
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> APIError:
        return APIError(
            413,
            f"the body has more than {self.max_body_bytes:,} bytes; send less, or have the server "
            "started with a larger --max-body-bytes",
            code="request_too_large",
            headers={"Connection": "close"},
        )


def _release_freed_memory() -> None:
    """Return freed memory to the system. By default glibc keeps the most that was ever in use."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library without this function
        return
    trim(0)


def _known(path: str) -> str:
    """Return a path for the log. Unknown paths are a client's content."""
    if path.startswith("/v1/models/"):
        return "/v1/models/NAME"
    return path if path in ("/v1/models", "/v1/chat/completions", "/v1/responses") else "other"
