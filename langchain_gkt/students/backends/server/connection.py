"""HTTP to one server: a pool of connections for each event loop, and errors that name the fix."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Any

import httpx

from langchain_gkt.errors import ConfigurationError, StudentError, bounded
from langchain_gkt.students.backends.server.dialects import Ask, Dialect, Reply
from langchain_gkt.students.backends.source import ModelSource

_CONNECT_SECONDS = 5.0
_BUSY = (429, 502, 503, 504)
"""Statuses of a busy server or router, or of one that still loads its model."""
_SESSION = "X-Session-ID"
_Keeper = AsyncGenerator[httpx.AsyncClient, None]


class Unreachable(StudentError):
    """The connection failed, or the server is busy. The same request may succeed later."""

    retryable = True
    hint = "start the server, or give its address as base_url"


class Connection:
    """Sends requests to a server. Usable from any event loop."""

    def __init__(
        self, source: ModelSource, dialect: Dialect, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        """Prepare, without a connection. A transport stands for the network in tests."""
        self.root = str(source.base_url).rstrip("/").removesuffix("/v1")
        self.model = source.served_model_name or ""
        self.dialect, self._key, self._transport = dialect, source.api_key, transport
        seconds = source.request_timeout
        self._timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        self._pools: dict[asyncio.AbstractEventLoop, tuple[_Keeper, httpx.AsyncClient]] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The certificates, read once: that takes longer than all else that a pool needs."""
        return httpx.create_ssl_context()

    async def _pool(self) -> httpx.AsyncClient:
        """Return the pool of the running event loop. It is closed when the loop shuts down."""
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            for ended in [known_loop for known_loop in self._pools if known_loop.is_closed()]:
                del self._pools[ended]
            # A loop that ends closes its asynchronous generators. There is no other such hook.
            keeper = self._keep(loop)
            self._pools[loop] = keeper, await anext(keeper)
        return self._pools[loop][1]

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> _Keeper:
        key = {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}
        pool = httpx.AsyncClient(
            base_url=self.root,
            headers=key,
            timeout=self._timeout,
            # The server has a queue of its own.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            transport=self._transport,
            verify=self._tls,
        )
        try:
            yield pool
        finally:
            self._pools.pop(loop, None)
            await pool.aclose()

    async def aclose(self) -> None:
        """Close the pool of the running event loop."""
        if kept := self._pools.get(asyncio.get_running_loop()):
            await kept[0].aclose()

    async def replies(self, ask: Ask, session: str = "") -> AsyncGenerator[Reply, None]:
        """Send a request and yield the replies. Closing the generator stops the server.

        Args:
            ask: The request.
            session: A key that the requests of one conversation share, for a router in front.

        Raises:
            Unreachable: If the connection fails, or the server is busy.
            StudentError: If the server refuses, fails or is silent for too long.
            ConfigurationError: If the key or the model's name is wrong.
        """
        pool, body = await self._pool(), self.dialect.body(ask, self.model)
        headers, read = {_SESSION: session} if session else {}, self.dialect.reader(ask)
        try:
            async with pool.stream("POST", self.dialect.path, json=body, headers=headers) as got:
                if got.status_code != httpx.codes.OK:
                    await got.aread()
                    self.refuse(got)
                if not ask.stream:
                    await got.aread()
                    for reply in read(_json(got.text)):
                        yield reply
                    return
                async for line in got.aiter_lines():
                    name, _, data = line.partition(": ")
                    if name == "error" or (name == "data" and data != "[DONE]"):
                        for reply in read(_json(data)):
                            yield reply
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from error

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the response at a path below the root, whatever its status."""
        try:
            return await (await self._pool()).request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from error

    def refuse(self, response: httpx.Response) -> None:
        """Raise the error of an unsuccessful status."""
        status, message = response.status_code, bounded(_message(response), 300)
        if status in (401, 403):
            raise ConfigurationError(
                f"api_key is {'wrong' if self._key else 'missing'}: the server at base_url="
                f"{self.root!r} refuses the request ({status}: {message}); give the key that it "
                "was started with",
                status=status,
            )
        what = f"the server at base_url={self.root!r} answers {status}: {message}"
        if status in _BUSY:
            raise Unreachable(what, hint="ask again later, or start more replicas", status=status)
        if status == httpx.codes.NOT_FOUND:
            path = response.request.url.path
            raise StudentError(
                f"{what} (at {path})",
                hint=f"give the address of a server of the kind that backend names as base_url; a "
                f"router in front must forward {path}",
                status=status,
            )
        raise StudentError(what, status=status)

    def _failed(self, error: Exception) -> StudentError:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return StudentError(
                f"the server at base_url={self.root!r} sent nothing for request_timeout="
                f"{self._timeout.read:g} seconds ({what})",
                hint="raise request_timeout, or send the server fewer requests at once",
            )
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return StudentError(
                f"base_url={self.root!r} is no address ({what})",
                hint="give one such as 'http://127.0.0.1:8000/v1'",
            )
        return Unreachable(
            f"no server answers at base_url={self.root!r} ({what})", hint=Unreachable.hint
        )


def _json(text: str) -> Any:
    try:
        event = json.loads(text)
    except ValueError:
        raise StudentError(f"the server sent what is no JSON: {bounded(text, 100)!r}") from None
    error = event.get("error") if isinstance(event, dict) else None
    if error:
        message = error.get("message", error) if isinstance(error, dict) else error
        raise StudentError(f"the server failed: {bounded(str(message), 300)}")
    return event


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text or response.reason_phrase
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)
