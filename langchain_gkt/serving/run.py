"""Runs the web application on a port of this machine."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from langchain_gkt.serving.records import log, log_settings

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
"""Hosts that are not reachable from outside this machine."""

MAX_CONNECTIONS = 256
_GRACE_SECONDS = 5.0
"""Extra seconds for a body on a connection, because the application answers before with 408."""


def default_hosts(host: str) -> list[str]:
    """Return the ``Host`` headers to answer to, so that no web page can pose as this machine.

    For an address that others reach, it is ``*``, which is any, because only they know its names.
    """
    return ["127.0.0.1", "localhost", "[::1]", "::1"] if host in LOCAL_HOSTS else ["*"]


def bind(host: str, port: int) -> socket.socket:
    """Take a port, before models are loaded in vain. The socket does not listen yet.

    Args:
        host: The address to listen on.
        port: The port. 0 for any free one.

    Raises:
        OSError: If the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        # Not only SO_REUSEADDR, so that a port in use is still refused.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"--port {port} is in use on {host}; give another, or 0 for any free one"
            ) from error
        if error.errno == errno.EACCES:
            raise OSError(f"--port {port} needs more rights; give one above 1023") from error
        raise OSError(f"--host {host} is no address of this machine: {error}") from error
    return listener


def server_config(
    app: FastAPI, *, read_seconds: float, max_connections: int = MAX_CONNECTIONS, **options: Any
) -> uvicorn.Config:
    """Return the settings of a server that clients cannot block.

    Args:
        app: The application.
        read_seconds: How long a client may take to send a request's headers, and then its body.
        max_connections: Connections whose requests are answered. Further ones get 503, and beyond
            twice as many nothing.
        **options: Further fields.
    """
    return uvicorn.Config(
        app,
        http=_limited_protocol(read_seconds, 2 * max_connections),
        limit_concurrency=max_connections + 1,  # uvicorn refuses from this number on
        lifespan="off",
        access_log=False,
        **options,
    )


def _limited_protocol(read_seconds: float, max_connections: int) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits. By itself it lets half a request stay forever."""

    class LimitedProtocol(H11Protocol):
        """Closes a connection beyond the limit, or whose request does not end in time."""

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


def run(
    app: FastAPI,
    listener: socket.socket,
    *,
    shutdown_seconds: float,
    read_seconds: float = 30.0,
    max_connections: int = MAX_CONNECTIONS,
) -> None:
    """Serve until a signal ends it. See `server_config` for the limits.

    Args:
        app: The application.
        listener: The result of `bind`.
        shutdown_seconds: How long running answers may take after the signal.
        read_seconds: As for `server_config`.
        max_connections: As for `server_config`.
    """
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    config = server_config(
        app,
        read_seconds=read_seconds,
        max_connections=max_connections,
        log_config=log_settings(),
        timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
    )
    earlier: Any = signal.getsignal(signal.SIGTERM)
    # uvicorn sends the signal again when it has ended. By default that would skip all cleanup.
    signal.signal(signal.SIGTERM, _exit)
    try:
        log("listening", url=f"http://{address}:{port}/v1")
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
