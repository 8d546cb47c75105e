"""Waits for the stages of a call within its deadline, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from langchain_gkt.chain.reliability.deadline import Deadline, Stage
from langchain_gkt.chain.reliability.run_guard import RunGuard
from langchain_gkt.chain.reliability.threads import AbandonableThread, NotInTime
from langchain_gkt.time_limit import OutOfTime, SecondsLeft, limited_to, time_over

# Our own student ends by itself when the time is over, and can report its stage.
GRACE_SECONDS = 0.25
# How long the reader of a stream that leaves early waits for the model's run to end.
_CLOSING_SECONDS = 1.0
END = object()
"""What `ThreadIterator.following` returns behind the last item."""


def time_to_wait(deadline: Deadline, stage: Stage) -> SecondsLeft:
    """Return a function for the seconds to wait for a stage, which must have some left."""
    left = deadline.left(stage)
    if left() <= 0:
        raise deadline.error(stage, OutOfTime("no time was left to begin"))
    return left if stage != "student" else lambda: left() + GRACE_SECONDS


class StageThread(AbandonableThread):
    """The thread of one stage of a call, which is abandoned when the stage's time is over."""

    def __init__(self, deadline: Deadline, stage: Stage, guard: RunGuard | None) -> None:
        """Start it, if the stage has time left. The guard ends the runs of the stage's model."""
        self._deadline, self._stage, self._guard = deadline, stage, guard
        self._wait = time_to_wait(deadline, stage)
        with limited_to(deadline.left(stage)):  # the thread copies the context
            super().__init__()

    def call_in_time(self, work: Callable[[], Any], chunks: Sequence[Any] = ()) -> Any:
        """Do some work. The chunks are the model's output so far."""
        try:
            with self._deadline.taken_by(self._stage):
                return self.call(work, self._wait)
        except NotInTime:
            cause = OutOfTime(f"the call's time was over while waiting for the {self._stage}")
            self._end_runs(cause, chunks)
            raise self._deadline.error(self._stage, cause) from cause
        except KeyboardInterrupt as error:
            self._end_runs(error, chunks)
            raise
        except Exception as error:
            if over := time_over(error):
                raise self._deadline.error(self._stage, over) from over
            raise

    def _end_runs(self, error: BaseException, chunks: Sequence[Any]) -> None:
        if self._guard is not None:
            self._guard.end_runs(error, chunks)


class ThreadIterator:
    """An iterator that is made, read and closed on a thread."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        """Note how to make it."""
        self._start, self._iterators = start, list[Any]()

    def following(self) -> Any:
        """Return the next item, or `END`."""
        if not self._iterators:
            self._iterators.append(self._start())
        return next(self._iterators[0], END)

    def close(self) -> None:
        """Close it, if it was made."""
        while self._iterators:
            self._iterators.pop().close()


def call_in_time(
    deadline: Deadline,
    stage: Stage,
    work: Callable[[], Any],
    *,
    guard: RunGuard | None = None,
    undo: Callable[[Any], None] | None = None,
) -> Any:
    """Do the work of a stage on a thread of its own, and abandon it when its time is over.

    Args:
        deadline: The deadline of the call.
        stage: Which stage of the call it is.
        work: The work.
        guard: Guards the runs of the model that does it.
        undo: Frees the result if nobody waits for it any more.

    Raises:
        TeacherError: If the teacher takes too long.
        StudentError: If the student does.
    """
    results = list[Any]()

    def kept() -> Any:
        results.append(work())
        return results[0]

    def free() -> None:
        for result in results:
            if undo is not None:
                undo(result)

    thread = StageThread(deadline, stage, guard)
    try:
        result = thread.call_in_time(kept)
    except BaseException:
        thread.end(free)
        raise
    thread.end()
    return result


def stream_in_time(
    deadline: Deadline, stage: Stage, start: Callable[[], Iterator[Any]], guard: RunGuard
) -> Generator[Any, None, None]:
    """Yield the items of an iterator as `call_in_time` gives results. It reads no further.

    Closing it early closes the iterator. A model that does not end at once is abandoned.
    """
    thread, items, chunks = StageThread(deadline, stage, guard), ThreadIterator(start), list[Any]()
    try:
        while (chunk := thread.call_in_time(items.following, chunks)) is not END:
            chunks.append(chunk)
            yield chunk
    except GeneratorExit:
        try:
            thread.call(items.close, lambda: _CLOSING_SECONDS)
        except NotInTime:
            guard.end_runs(GeneratorExit(), chunks)
        raise
    finally:
        thread.end(items.close)
