"""A stream of nested generators that an event loop's end closes from the outside in."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Unregistered(Generic[T]):
    """Awaits something. The event loop does not register generators that begin inside."""

    def __init__(self, begin: Callable[[], Awaitable[T]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, T]:
        steps = _unregistered(lambda: self._begin().__await__())
        value, thrown = None, None
        while True:
            try:
                if thrown is None:
                    step = _unregistered(partial(steps.send, value))
                else:
                    step = _unregistered(partial(steps.throw, thrown))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                value, thrown = (yield step), None
            except BaseException as error:  # noqa: BLE001  it is the inner one's to handle
                value, thrown = None, error


def _unregistered(work: Callable[[], Any]) -> Any:
    firstiter = sys.get_asyncgen_hooks().firstiter
    sys.set_asyncgen_hooks(firstiter=None)  # the finalizer stays, for forgotten ones
    try:
        return work()
    finally:
        sys.set_asyncgen_hooks(firstiter=firstiter)


class OwnedStream(Generic[T]):
    """A stream that only its reader closes, with all generators inside it.

    An event loop that ends closes every generator it knows, all at once. Nested ones then block
    each other, and each failure is logged.
    """

    def __init__(self, chunks: Any) -> None:
        """Own an asynchronous generator that has not started yet."""
        self._chunks = chunks

    def __aiter__(self) -> OwnedStream[T]:
        """Return itself."""
        return self

    async def __anext__(self) -> T:
        """Return the next chunk."""
        return await _Unregistered(self._chunks.__anext__)

    async def aclose(self) -> None:
        """Close the stream and what is inside it."""
        await _Unregistered(self._chunks.aclose)
