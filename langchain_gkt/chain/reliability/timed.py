"""Waits for the stages of a call within its deadline, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from langchain_gkt.chain.reliability.deadline import Deadline, Stage
from langchain_gkt.chain.reliability.run_guard import RunGuard
from langchain_gkt.chain.reliability.threads import AbandonableThread, NotInTime
from langchain_gkt.time_limit import OutOfTime, SecondsLeft, limited_to, time_over

# Our own student ends by itself when the time is over, and can report its stage.
GRACE_SECONDS = 0.25
# How long the reader of a stream that leaves early waits for the model's run to end.
_CLOSING_SECONDS = 1.0
_END = object()


def time_to_wait(deadline: Deadline, stage: Stage) -> SecondsLeft:
    """Return a function for the seconds to wait for a stage of a call.

    Raises:
        TeacherError: If the teacher has no time left.
        StudentError: If the student has none.
    """
    left = deadline.left(stage)
    if left() <= 0:
        raise deadline.error(stage, OutOfTime("no time was left to begin"))
    return left if stage != "student" else lambda: left() + GRACE_SECONDS


class TimedStages:
    """Runs each stage of a call on a thread of its own, and abandons it in time."""

    def __init__(self, deadline: Deadline) -> None:
        """Wait for nothing yet."""
        self._deadline = deadline

    def call(
        self,
        stage: Stage,
        work: Callable[[], Any],
        *,
        guard: RunGuard | None = None,
        undo: Callable[[Any], None] | None = None,
    ) -> Any:
        """Do some work.

        Args:
            stage: Which stage of the call it is.
            work: The work.
            guard: Guards the runs of the model that does it.
            undo: Frees the result if nobody waits for it any more.

        Returns:
            Its result.

        Raises:
            TeacherError: If the teacher takes too long.
            StudentError: If the student does.
        """
        wait, results = time_to_wait(self._deadline, stage), list[Any]()

        def kept() -> Any:
            results.append(work())
            return results[0]

        thread = self._thread(stage)
        last: Callable[[], Any] | None = None
        try:
            return self._await(thread, stage, kept, wait, guard)
        except _Abandoned as left:
            if undo is not None:
                last = lambda: [undo(result) for result in results]  # noqa: E731
            raise left.error from left.error.__cause__
        finally:
            thread.end(last)

    def stream(
        self, stage: Stage, start: Callable[[], Iterator[Any]], guard: RunGuard
    ) -> TimedStream:
        """Yield the items of an iterator.

        Args:
            stage: Which stage of the call it is.
            start: Makes the iterator, on the thread.
            guard: Guards the runs of the model.

        Returns:
            An iterator with a method ``close``.
        """
        return TimedStream(self, stage, start, guard)

    def _thread(self, stage: Stage) -> AbandonableThread:
        with limited_to(self._deadline.left(stage)):  # the thread copies the context
            return AbandonableThread()

    def _await(
        self,
        thread: AbandonableThread,
        stage: Stage,
        work: Callable[[], Any],
        wait: SecondsLeft,
        guard: RunGuard | None,
        chunks: list[Any] | None = None,
    ) -> Any:
        try:
            with self._deadline.taken_by(stage):
                return thread.call(work, wait)
        except NotInTime:
            cause = OutOfTime(f"the call's time was over while waiting for the {stage}")
            if guard is not None:
                guard.end_runs(cause, chunks or ())
            raise _Abandoned(self._deadline.error(stage, cause)) from None
        except KeyboardInterrupt as error:
            if guard is not None:
                guard.end_runs(error, chunks or ())
            raise
        except Exception as error:
            if over := time_over(error):
                raise _Abandoned(self._deadline.error(stage, over)) from error
            raise


class _Abandoned(Exception):
    """The work was abandoned. ``error`` is the error to raise."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class TimedStream:
    """An iterator over a thread's iterator. It reads no further than requested."""

    def __init__(
        self, timed: TimedStages, stage: Stage, start: Callable[[], Iterator[Any]], guard: RunGuard
    ) -> None:
        """Start only the thread.

        Args:
            timed: The waiting side.
            stage: Which stage of the call it is.
            start: Makes the iterator, on the thread.
            guard: Guards the runs of the model.
        """
        self._timed, self._stage, self._start, self._guard = timed, stage, start, guard
        self._wait = time_to_wait(timed._deadline, stage)
        self._thread = timed._thread(stage)
        self._iterator: Any = None
        self._chunks: list[Any] = []
        self._open = True

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = self._start()
        return next(self._iterator, _END)

    def _close_iterator(self) -> None:
        if self._iterator is not None:
            self._iterator.close()

    def __iter__(self) -> TimedStream:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next item.

        Raises:
            StopIteration: If there is none.
            TeacherError: If the teacher takes too long.
            StudentError: If the student does.
        """
        if not self._open:
            raise StopIteration
        try:
            chunk = self._timed._await(
                self._thread, self._stage, self._next, self._wait, self._guard, self._chunks
            )
        except _Abandoned as left:
            self._leave()
            raise left.error from left.error.__cause__
        except BaseException:
            self._leave()
            raise
        if chunk is _END:
            self._leave()
            raise StopIteration
        self._chunks.append(chunk)
        return chunk

    def _leave(self) -> None:
        self._open = False
        self._thread.end(self._close_iterator)

    def close(self) -> None:
        """Close the iterator. A model that does not end at once is abandoned."""
        if not self._open:
            return
        self._open = False
        try:
            self._thread.call(self._close_iterator, lambda: _CLOSING_SECONDS)
        except NotInTime:
            self._guard.end_runs(GeneratorExit(), self._chunks)
        finally:
            self._thread.end()
