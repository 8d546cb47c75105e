"""An event loop in a thread, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSING_SECONDS = 10.0


class LoopThread:
    """Runs coroutines on an event loop of its own. The thread ends with its owner."""

    def __init__(self) -> None:
        """Start the thread."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=_serve, args=[self.loop], name="gkt-student", daemon=True
        )
        self.thread.start()
        weakref.finalize(self, _stop, self.loop).atexit = False

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end. The caller's thread waits."""
        return self.submit(work).result()

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """End the thread, after some last work on its event loop."""

        async def end() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await last()

        if self.thread is not threading.current_thread():
            self.submit(end()).result(_CLOSING_SECONDS)
            _stop(self.loop)
            self.thread.join(_CLOSING_SECONDS)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
