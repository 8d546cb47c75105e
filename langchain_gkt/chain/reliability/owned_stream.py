"""A stream of nested generators that an event loop's end closes from the outside in."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from types import coroutine
from typing import Any


@coroutine
def _await_unregistered(begin: Callable[[], Awaitable[Any]]) -> Generator[Any, Any, Any]:
    """Await something. The event loop does not register generators that begin inside."""
    steps = _unregistered(lambda: begin().__await__())
    resume = partial(steps.send, None)
    while True:
        try:
            step = _unregistered(resume)
        except StopIteration as end:
            return end.value
        try:
            resume = partial(steps.send, (yield step))
        except BaseException as error:  # noqa: BLE001  it is the inner one's to handle
            resume = partial(steps.throw, error)


def _unregistered(work: Callable[[], Any]) -> Any:
    firstiter = sys.get_asyncgen_hooks().firstiter
    sys.set_asyncgen_hooks(firstiter=None)  # the finalizer stays, for forgotten ones
    try:
        return work()
    finally:
        sys.set_asyncgen_hooks(firstiter=firstiter)


class OwnedStream:
    """A stream that only its reader closes, with all generators inside it.

    An event loop that ends closes every generator it knows, all at once. Nested ones then block
    each other, and each failure is logged.
    """

    def __init__(self, chunks: Any) -> None:
        """Own an asynchronous generator that has not started yet."""
        self._chunks = chunks

    def __aiter__(self) -> OwnedStream:
        """Return itself."""
        return self

    async def __anext__(self) -> Any:
        """Return the next chunk."""
        return await _await_unregistered(self._chunks.__anext__)

    async def aclose(self) -> None:
        """Close the stream and what is inside it."""
        await _await_unregistered(self._chunks.aclose)
