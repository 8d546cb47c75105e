"""Awaits the stages of a call within its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

from langchain_gkt.chain.reliability.deadline import Deadline, Stage
from langchain_gkt.chain.reliability.run_guard import Abandoned, RunGuard
from langchain_gkt.chain.reliability.timed import END, StageThread, ThreadIterator, time_to_wait
from langchain_gkt.time_limit import OutOfTime, SecondsLeft, limited_to, time_over

# A model that continues after its cancellation is cancelled again.
_AGAIN_SECONDS = 1.0


class _Alarm:
    """Cancels the current task's await inside when the time is over.

    It does what ``asyncio.timeout`` does from Python 3.11 on, and ends the model's runs first.
    """

    def __init__(self, left: SecondsLeft, guard: RunGuard | None) -> None:
        self._left, self._guard = left, guard
        self._task: Any = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._others, self.rings = 0, 0

    def __enter__(self) -> _Alarm:
        self._others = self._cancels()
        self._handle = self._loop.call_later(self._left(), self._ring)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: object) -> None:
        if self._handle is not None:
            self._handle.cancel()
        for _ in range(self.rings):
            if hasattr(self._task, "uncancel"):  # from Python 3.11 on
                self._task.uncancel()
        if not self.rings or error is None:
            return
        if isinstance(error, asyncio.CancelledError) and self._cancels() > self._others:
            return  # somebody else cancelled the task, too
        raise OutOfTime("the call's time was over") from None

    def _cancels(self) -> int:
        return self._task.cancelling() if hasattr(self._task, "cancelling") else 0

    def _ring(self) -> None:
        self.rings += 1
        if self._guard is not None:
            self._guard.abandon()
        self._task.cancel()
        self._handle = self._loop.call_later(_AGAIN_SECONDS, self._ring)


async def await_in_time(
    deadline: Deadline,
    stage: Stage,
    work: Callable[[], Awaitable[Any]],
    *,
    guard: RunGuard | None = None,
    chunks: Sequence[Any] = (),
) -> Any:
    """Await the work of a stage in the task of its caller, and cancel it when its time is over.

    See `call_in_time`. ``chunks`` is the model's output so far.
    """
    wait = time_to_wait(deadline, stage)
    try:
        left = limited_to(deadline.left(stage))
        with left, deadline.taken_by(stage), _Alarm(wait, guard):
            return await work()
    except Exception as error:
        if (cause := time_over(error)) is None:
            raise
        if guard is not None:
            await guard.aend_runs(cause, chunks)
        raise deadline.error(stage, cause) from cause


async def await_thread(
    deadline: Deadline, stage: Stage, work: Callable[[], Any], guard: RunGuard
) -> Any:
    """Await work that blocks. See `await_in_time`."""
    thread = StageThread(deadline, stage, guard)
    try:
        return await await_in_time(deadline, stage, partial(thread.acall, work), guard=guard)
    finally:
        thread.end()


async def read_on_thread(
    deadline: Deadline, stage: Stage, start: Callable[[], Iterator[Any]], guard: RunGuard
) -> AsyncIterator[Any]:
    """Yield the items of an iterator that blocks. It is closed whenever its thread has time."""
    thread, items = StageThread(deadline, stage, guard), ThreadIterator(start)
    try:
        while (chunk := await thread.acall(items.following)) is not END:
            yield chunk
    finally:
        thread.end(items.close)


class TimedAsyncStream:
    """An iterator over another, each item in time. See `await_in_time`."""

    def __init__(
        self, deadline: Deadline, stage: Stage, stream: AsyncIterator[Any], guard: RunGuard
    ) -> None:
        """Request nothing yet."""
        self._deadline, self._stage, self._stream, self._guard = deadline, stage, stream, guard
        self._chunks: list[Any] = []

    async def __anext__(self) -> Any:
        """Return the next item."""
        chunk = await await_in_time(
            self._deadline,
            self._stage,
            self._stream.__anext__,
            guard=self._guard,
            chunks=self._chunks,
        )
        self._chunks.append(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the iterator."""
        try:
            await self._stream.aclose()  # type: ignore[attr-defined]
        except Abandoned:  # its runs have ended
            return
