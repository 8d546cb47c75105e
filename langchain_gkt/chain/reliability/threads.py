"""Threads for work that cannot be interrupted. Its caller may leave."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple


class NotInTime(Exception):
    """Work has not ended yet."""


class _Outcome(NamedTuple):
    result: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class AbandonableThread:
    """Does work on one thread, in the context of its maker, one piece at a time.

    The thread is a daemon, so work that never ends does not keep the program from ending.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[_Outcome], None]] | None]
        self._jobs = queue.SimpleQueue()
        context = copy_context()
        threading.Thread(
            target=context.run, args=(self._serve,), name="gkt-call", daemon=True
        ).start()

    def _serve(self) -> None:
        for work, deliver in iter(self._jobs.get, None):
            try:
                outcome = _Outcome(result=work())
            except BaseException as error:  # noqa: BLE001  raised again where it is waited for
                outcome = _Outcome(error=error)
            deliver(outcome)
            del work, deliver, outcome  # holds nothing while it waits for the next

    def call(self, work: Callable[[], Any], left: Callable[[], float]) -> Any:
        """Do some work and wait as many seconds as are left.

        Raises:
            NotInTime: If it takes longer. The thread continues it.
        """
        outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._jobs.put((work, outcomes.put))
        try:
            outcome = outcomes.get(timeout=left())
        except queue.Empty:
            raise NotInTime from None
        return outcome.unwrap()

    async def acall(self, work: Callable[[], Any]) -> Any:
        """Do some work and await it. The thread continues it if the task is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Outcome] = loop.create_future()

        def settle(outcome: _Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        def deliver(outcome: _Outcome) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(settle, outcome)

        self._jobs.put((work, deliver))
        return (await future).unwrap()

    def end(self, last: Callable[[], Any] | None = None) -> None:
        """Let the thread end when all its work is done, of which ``last`` may fail unseen."""
        if last is not None:
            self._jobs.put((last, lambda outcome: None))
        self._jobs.put(None)
