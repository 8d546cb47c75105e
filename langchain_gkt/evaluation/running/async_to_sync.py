"""Runs a coroutine from synchronous code, even while an event loop runs, as in a notebook."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextvars import copy_context
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def async_to_sync(work: Callable[P, Coroutine[Any, Any, T]], name: str) -> Callable[P, T]:
    """Make the synchronous version of an asynchronous function. See `_run`."""

    @wraps(work)
    def version(*args: P.args, **kwargs: P.kwargs) -> T:
        return _run(lambda: work(*args, **kwargs))

    version.__name__ = version.__qualname__ = name
    version.__doc__ = (
        f"{work.__doc__}\n    `{name}` blocks until the end and may be called while an event loop "
        f"runs; `{work.__name__}` is to be awaited.\n    "
    )
    return version


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in a thread of its own.

    All calls share one event loop, because a model's HTTP client keeps connections, and they belong
    to the loop that opened them.
    """
    done: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []
    loop = _loop_of(os.getpid())

    def end(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            done.set_exception(CancelledError())
        elif error := task.exception():
            done.set_exception(error)
        else:
            done.set_result(task.result())

    def begin() -> None:
        tasks.append(loop.create_task(work()))
        tasks[0].add_done_callback(end)

    def cancel() -> None:
        if tasks:
            tasks[0].cancel()
        else:  # interrupted before it began
            done.set_exception(CancelledError())

    try:
        # In the caller's context, where `track_costs` may have set a tracker.
        loop.call_soon_threadsafe(begin, context=copy_context())
        # A signal just before an endless wait would not end it.
        while not wait([done], timeout=0.2).done:
            pass
        return done.result()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(cancel)
        wait([done])  # until the run store is closed
        raise


@cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gkt-evaluation", daemon=True)
    thread.start()

    def close() -> None:
        if os.getpid() == process:  # a fork has the loop, but not the thread
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    atexit.register(close)
    return loop
