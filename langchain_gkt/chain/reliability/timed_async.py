"""Awaits the stages of a call within its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from langchain_gkt.chain.reliability.deadline import Deadline, Stage
from langchain_gkt.chain.reliability.run_guard import Abandoned, RunGuard
from langchain_gkt.chain.reliability.threads import AbandonableThread
from langchain_gkt.chain.reliability.timed import time_to_wait
from langchain_gkt.time_limit import OutOfTime, SecondsLeft, limited_to, time_over

# A model that continues after its cancellation is cancelled again.
_AGAIN_SECONDS = 1.0
_END = object()


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


class AwaitedStages:
    """Awaits each stage of a call in the task of its caller, and cancels it in time."""

    def __init__(self, deadline: Deadline) -> None:
        """Wait for nothing yet."""
        self._deadline = deadline

    async def call(
        self,
        stage: Stage,
        work: Callable[[], Awaitable[Any]],
        *,
        guard: RunGuard | None = None,
        chunks: list[Any] | None = None,
    ) -> Any:
        """Await some work.

        Args:
            stage: Which stage of the call it is.
            work: The work.
            guard: Guards the runs of the model that does it.
            chunks: The model's output so far.

        Returns:
            Its result.

        Raises:
            TeacherError: If the teacher takes too long.
            StudentError: If the student does.
        """
        wait = time_to_wait(self._deadline, stage)
        try:
            left = limited_to(self._deadline.left(stage))
            with left, self._deadline.taken_by(stage), _Alarm(wait, guard):
                return await work()
        except Exception as error:
            if (cause := time_over(error)) is None:
                raise
            if guard is not None:
                await guard.aend_runs(cause, chunks or ())
            raise self._deadline.error(stage, cause) from cause

    async def call_thread(self, stage: Stage, work: Callable[[], Any], guard: RunGuard) -> Any:
        """Await some work that blocks.

        Args:
            stage: Which stage of the call it is.
            work: The work.
            guard: Guards the runs of the model that does it.

        Returns:
            Its result.

        Raises:
            TeacherError: If the teacher takes too long.
            StudentError: If the student does.
        """
        with limited_to(self._deadline.left(stage)):  # the thread copies the context
            thread = AbandonableThread()
        try:
            return await self.call(stage, lambda: thread.acall(work), guard=guard)
        finally:
            thread.end()

    def stream(
        self, stage: Stage, start: Callable[[], AsyncIterator[Any]], guard: RunGuard
    ) -> TimedAsyncStream:
        """Yield the items of an asynchronous iterator.

        Args:
            stage: Which stage of the call it is.
            start: Makes the iterator.
            guard: Guards the runs of the model.

        Returns:
            An iterator with a method ``aclose``.
        """
        return TimedAsyncStream(self, stage, start(), guard)

    def stream_thread(
        self, stage: Stage, start: Callable[[], Iterator[Any]], guard: RunGuard
    ) -> TimedAsyncStream:
        """Yield the items of an iterator that blocks.

        Args:
            stage: Which stage of the call it is.
            start: Makes the iterator, on a thread.
            guard: Guards the runs of the model.

        Returns:
            An iterator with a method ``aclose``.
        """
        with limited_to(self._deadline.left(stage)):
            thread = AbandonableThread()
        return TimedAsyncStream(self, stage, _read_on(thread, start), guard)


async def _read_on(
    thread: AbandonableThread, start: Callable[[], Iterator[Any]]
) -> AsyncIterator[Any]:
    """Yield a thread's items. The iterator is closed there, whenever the thread has time."""
    iterators: list[Any] = []

    def following() -> Any:
        if not iterators:
            iterators.append(start())
        return next(iterators[0], _END)

    try:
        while (chunk := await thread.acall(following)) is not _END:
            yield chunk
    finally:
        thread.end(lambda: [iterator.close() for iterator in iterators])


class TimedAsyncStream:
    """An iterator over another, each item in time."""

    def __init__(
        self, awaited: AwaitedStages, stage: Stage, stream: AsyncIterator[Any], guard: RunGuard
    ) -> None:
        """Request nothing yet.

        Args:
            awaited: The waiting side.
            stage: Which stage of the call it is.
            stream: The iterator.
            guard: Guards the runs of the model.
        """
        self._awaited, self._stage, self._stream, self._guard = awaited, stage, stream, guard
        self._chunks: list[Any] = []

    def __aiter__(self) -> TimedAsyncStream:
        """Return itself."""
        return self

    async def __anext__(self) -> Any:
        """Return the next item.

        Raises:
            StopAsyncIteration: If there is none.
            TeacherError: If the teacher takes too long.
            StudentError: If the student does.
        """
        chunk = await self._awaited.call(
            self._stage, self._stream.__anext__, guard=self._guard, chunks=self._chunks
        )
        self._chunks.append(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the iterator."""
        try:
            await self._stream.aclose()  # type: ignore[attr-defined]
        except Abandoned:  # its runs have ended
            return
