"""Connections with limits. uvicorn lets a client that sends half a request stay forever."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_GRACE_SECONDS = 5.0
"""Extra seconds for a body here, because the application answers before with 408."""


def limited_protocol(*, read_seconds: float, max_connections: int) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits of its own.

    Args:
        read_seconds: How long a client may take to send a request's headers, and then its body.
        max_connections: Maximum open connections. Further ones are closed unread.
    """

    class LimitedProtocol(H11Protocol):
        """Closes a connection whose request does not end in time."""

        _timer: asyncio.TimerHandle | None = None
        _awaited: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.abort()
                return
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _watch(self) -> None:
            state = self.conn.their_state
            if state not in (h11.IDLE, h11.SEND_BODY):
                self._forget()
            elif self._timer is None or state is not self._awaited:
                self._forget()
                grace = _GRACE_SECONDS if state is h11.SEND_BODY else 0.0
                self._awaited = state
                self._timer = self.loop.call_later(read_seconds + grace, self.transport.abort)

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return LimitedProtocol
