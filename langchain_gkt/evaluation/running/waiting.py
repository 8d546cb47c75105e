"""Waits for asynchronous work, wherever it is asked for."""

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


def waited_for(work: Callable[P, Coroutine[Any, Any, T]], name: str) -> Callable[P, T]:
    """Make the synchronous twin of an asynchronous function.

    Args:
        work: The function.
        name: The twin's name.

    Returns:
        A function that does the same and waits for it; see `run_now`.
    """

    @wraps(work)
    def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_now(lambda: work(*args, **kwargs))

    twin.__name__ = twin.__qualname__ = name
    twin.__doc__ = (
        f"{work.__doc__}\n    `{name}` waits for the end, also where an event loop runs already; "
        f"`{work.__name__}` is to be awaited.\n    "
    )
    return twin


def run_now(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, also where an event loop runs already, as in a notebook.

    All calls share one loop: a model's HTTP client keeps connections, and they belong to the
    loop they were opened in.

    Args:
        work: Makes the coroutine.

    Returns:
        What it returns.
    """
    done: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []
    loop = _shared_loop()

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

    # With the caller's context, in which `track_costs` may listen.
    loop.call_soon_threadsafe(begin, context=copy_context())
    try:
        return done.result()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
        wait([done])  # until the folder is closed
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


def _shared_loop() -> asyncio.AbstractEventLoop:
    return _loop_of(os.getpid())
