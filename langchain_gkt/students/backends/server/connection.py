"""HTTP to one server: a pool of connections for each event loop, and errors that name the fix."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from langchain_gkt.errors import ConfigurationError, StudentError, bounded
from langchain_gkt.students.backends.server.dialects import Ask, Dialect, Reply
from langchain_gkt.students.backends.source import ModelSource

_CONNECT_SECONDS = 5.0
_BUSY = (429, 502, 503, 504)
"""Statuses of a busy server or router, or of one that still loads its model."""
_SESSION = "X-Session-ID"


class Unreachable(StudentError):
    """The connection failed, or the server is busy. The same request may succeed later."""

    retryable = True
    hint = "start the server, or give its address as base_url"


class Connection:
    """Sends requests to a server. Usable from any event loop."""

    def __init__(
        self, source: ModelSource, dialect: Dialect, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        """Prepare, without a connection.

        Args:
            source: The student's fields: address, key and time limit.
            dialect: The server's dialect.
            transport: Carries the requests. None for the network.
        """
        root = str(source.base_url).rstrip("/")
        self.root = root.removesuffix("/v1")
        self.model = source.served_model_name or ""
        self._key, self._dialect, self._transport = source.api_key, dialect, transport
        seconds = source.request_timeout
        self._timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        self._pools: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._keepers: dict[asyncio.AbstractEventLoop, AsyncGenerator[httpx.AsyncClient, None]] = {}

    async def client(self) -> httpx.AsyncClient:
        """Return the pool of the running event loop. It is closed when the loop shuts down."""
        loop = asyncio.get_running_loop()
        if (pool := self._pools.get(loop)) is None:
            for ended in [known_loop for known_loop in self._pools if known_loop.is_closed()]:
                del self._pools[ended], self._keepers[ended]
            # A loop that ends closes its asynchronous generators. There is no other such hook.
            self._keepers[loop] = keeper = self._keep(loop)
            pool = self._pools[loop] = await anext(keeper)
        return pool

    async def _keep(
        self, loop: asyncio.AbstractEventLoop
    ) -> AsyncGenerator[httpx.AsyncClient, None]:
        key = {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}
        pool = httpx.AsyncClient(
            base_url=self.root,
            headers=key,
            timeout=self._timeout,
            # The server has a queue of its own.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            transport=self._transport,
        )
        try:
            yield pool
        finally:
            self._pools.pop(loop, None)
            await pool.aclose()

    async def aclose(self) -> None:
        """Close the pool of the running event loop."""
        keeper = self._keepers.pop(asyncio.get_running_loop(), None)
        if keeper is not None:
            await keeper.aclose()

    async def replies(self, ask: Ask, session: str = "") -> AsyncGenerator[Reply, None]:
        """Send a request. Closing the generator drops it, which stops the server.

        Args:
            ask: The request.
            session: A key that the requests of one conversation share, for a router in front.

        Yields:
            What the server answers.

        Raises:
            Unreachable: If the connection fails, or the server is busy.
            StudentError: If the server refuses, fails or is silent for too long.
            ConfigurationError: If the key or the model's name is wrong.
        """
        pool, body = await self.client(), self._dialect.body(ask, self.model)
        headers, read = {_SESSION: session} if session else {}, self._dialect.reader(ask)
        try:
            async with pool.stream("POST", self._dialect.path, json=body, headers=headers) as got:
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

    async def get(self, path: str) -> httpx.Response:
        """Return the response at a path below the root.

        Raises:
            Unreachable: If the connection fails.
        """
        return await self._request("GET", path)

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Return the answer to a request, whatever its status.

        Raises:
            Unreachable: If the connection fails.
        """
        return await self._request("POST", path, json=body)

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await (await self.client()).request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from error

    def refuse(self, response: httpx.Response) -> None:
        """Raise the error of an unsuccessful status.

        Args:
            response: The server's answer.

        Raises:
            ConfigurationError: If the key or the model's name is wrong.
            Unreachable: If the server is busy.
            StudentError: For any other error.
        """
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
