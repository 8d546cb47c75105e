"""What every request passes first: its id, its key, its size and its record."""

from __future__ import annotations

import re
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_gkt.serving.errors import APIError, as_api_error
from langchain_gkt.serving.keys import KeyRing
from langchain_gkt.serving.metrics import Metrics
from langchain_gkt.serving.records import RequestRecord, log

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_QUIET = ("/health", "/metrics")


class Gate:
    """ASGI middleware: refuses requests before they are read, and records how each ended."""

    def __init__(
        self, app: ASGIApp, *, keys: KeyRing, metrics: Metrics, max_body_bytes: int
    ) -> None:
        """Guard an application.

        Args:
            app: The application.
            keys: Who may ask it.
            metrics: Where requests are counted.
            max_body_bytes: Most bytes of a request's body.
        """
        self.app, self.keys, self.metrics = app, keys, metrics
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), False
        given = headers.get("x-request-id", "")
        record = RequestRecord(
            request_id=given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
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
            if not is_quiet:
                self.metrics.begin(record)
                receive = await self._admit(scope, headers, receive, record)
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            record.note_error(error)
            if not began:
                await as_api_error(error).response()(scope, receive, send_with_id)
        finally:
            record.finish()
            if not is_quiet:
                self.metrics.observe(record)
                log("request", **record.to_dict())

    async def _admit(
        self, scope: Scope, headers: Headers, receive: Receive, record: RequestRecord
    ) -> Receive:
        """Refuse a request, or return what gives its body."""
        client = self.keys.authenticate(headers.get("authorization"))
        record.client = client.key.name
        scope["state"]["client"] = client
        if scope["method"] != "POST":
            return receive
        client.count_request()
        body = await self._read(headers, receive)
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """Read the body, up to its limit."""
        most = self.max_body_bytes
        length = headers.get("content-length", "")
        parts, size, more = [], int(length) if length.isdigit() else 0, True
        if size <= most:
            size = 0
        while more and size <= most:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise APIError(400, "the client went away before its request was read")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        if size > most:
            raise APIError(
                413,
                f"the body has more than {most:,} bytes; send less, or have the server started "
                "with a larger --max-body-bytes",
                code="request_too_large",
                headers={"Connection": "close"},
            )
        return b"".join(parts)


def _known(path: str) -> str:
    """Return a path for the log: what a client made up is content."""
    if path.startswith("/v1/models/"):
        return "/v1/models/NAME"
    return path if path in ("/v1/models", "/v1/chat/completions") else "other"
