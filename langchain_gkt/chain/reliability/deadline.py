"""The deadline of one call: the time of each stage, and the error when it is over."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from langchain_gkt.errors import GKTError, StudentError, TeacherError, is_number
from langchain_gkt.time_limit import OutOfTime, SecondsLeft

Stage = Literal["teacher", "teacher prompt", "student"]
"""Stages of a call that take time. ``teacher prompt`` makes the teacher's prompt."""

STUDENT_SHARE = 0.5
"""Share of the remaining time that the teacher leaves to a student that may replace it."""

_NAMES = {
    "teacher": "the teacher",
    "teacher prompt": "the making of the teacher prompt",
    "student": "the student",
    "queue": "the student's queue",
}
_TEACHER_HINT = (
    "raise timeout, or set on_teacher_error='student' to have the student answer in the time "
    "that is left; what the teacher may have been paid is in the cost report as unreported"
)
_HINTS = {
    "student": "raise timeout, or lower max_tokens",
    "queue": "send fewer requests at once, raise the student's max_batch_size, or raise timeout",
}


def check_timeout(value: Any) -> float | None:
    """Return the seconds that a call may take, or None for no limit. Refuse another value."""
    if value is None:
        return None
    if not is_number(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"timeout must be a number of seconds above 0, or None for no limit, not {value!r}"
        )
    return float(value)


class Deadline:
    """The time of one call, which starts when this object is made.

    The time that the reader of a stream takes between two chunks does not count.
    """

    def __init__(self, seconds: float, *, reserves_student_time: bool) -> None:
        """Start the clock. The teacher leaves a share to a student that answers if it fails."""
        self._seconds, self._reserves_student_time = seconds, reserves_student_time
        self._end = time.monotonic() + seconds
        self._teacher_end: float | None = None
        self._paused_at: float | None = None
        self._taken: dict[str, float] = {}

    def left(self, stage: Stage) -> SecondsLeft:
        """Return a function for a stage's seconds. The teacher's share is measured at first use."""
        if stage == "student" or not self._reserves_student_time:
            return lambda: self._until(self._end)
        if self._teacher_end is None:
            left = self._until(self._end)
            self._teacher_end = self._end - left * STUDENT_SHARE
        return lambda: self._until(self._teacher_end or self._end)

    def _until(self, end: float) -> float:
        now = time.monotonic() if self._paused_at is None else self._paused_at
        return max(0.0, end - now)

    @contextmanager
    def taken_by(self, stage: Stage) -> Iterator[None]:
        """Count the time of a block as a stage's."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._taken[stage] = self._taken.get(stage, 0.0) + time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while the reader has the turn."""
        self._paused_at = began = time.monotonic()
        try:
            yield
        finally:
            self._paused_at, taken = None, time.monotonic() - began
            self._end += taken
            if self._teacher_end is not None:
                self._teacher_end += taken

    def error(self, stage: Stage, cause: OutOfTime) -> Exception:
        """Make the error of a call whose time is over. It says which stage took the time."""
        where = "queue" if cause.queued and stage == "student" else stage
        taken = ", ".join(f"{_NAMES[name]} {sec:.1f} s" for name, sec in self._taken.items())
        share = self._reserves_student_time and stage != "student"
        what = "the teacher's share of the call's" if share else "the call's"
        message = (
            f"{what} timeout={self._seconds:g} s is over, and {_NAMES[where]} had not finished "
            f"(taken so far: {taken})"
        )
        kind: type[GKTError] = StudentError if stage == "student" else TeacherError
        error = kind(message, hint=_HINTS.get(where, _TEACHER_HINT), retryable=True)
        error.__cause__ = cause
        return error
