"""An event loop in a thread, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSING_SECONDS = 10.0


class LoopThread:
    """Runs coroutines on an event loop of its own. The thread ends with its owner."""

    def __init__(self, last: Callable[[], Awaitable[None]]) -> None:
        """Start the thread.

        Args:
            last: Does the last work on the event loop. It must not hold the owner.
        """
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=_serve, args=[self.loop], name="gkt-student", daemon=True
        )
        self.thread.start()
        # The finalizer keeps alive what `last` needs: garbage cannot be closed any more.
        self._end = weakref.finalize(self, _end, self.loop, last, os.getpid())
        self._end.atexit = False

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end. The caller's thread waits."""
        return self.submit(work).result()

    def close(self) -> None:
        """End the thread, after the last work on its event loop."""
        if self.thread is not threading.current_thread():
            if (ending := self._end()) is not None:
                ending.result(_CLOSING_SECONDS)
            self.thread.join(_CLOSING_SECONDS)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _end(
    loop: asyncio.AbstractEventLoop, last: Callable[[], Awaitable[None]], process: int
) -> Future[None] | None:
    async def end() -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await last()

    if os.getpid() != process:  # a forked child has no such thread
        return None
    ending = asyncio.run_coroutine_threadsafe(end(), loop)
    ending.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    return ending
