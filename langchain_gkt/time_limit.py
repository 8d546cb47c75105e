"""The deadline of the current call, for everything that runs inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SecondsLeft = Callable[[], float]
"""Returns how many seconds a call has left, 0 or more."""

_left: ContextVar[SecondsLeft | None] = ContextVar("gkt_seconds_left", default=None)


class OutOfTime(TimeoutError):
    """The time of a call is over.

    Attributes:
        queued: Whether the request still waited for its turn.
    """

    def __init__(self, message: str, *, queued: bool = False) -> None:
        """Describe the wait."""
        super().__init__(message)
        self.queued = queued


def time_over(error: BaseException) -> OutOfTime | None:
    """Return the error, or its cause, if it means that a call's time is over. Else None."""
    for cause in (error, error.__cause__):
        if isinstance(cause, OutOfTime):
            return cause
    return None


@contextmanager
def limited_to(left: SecondsLeft) -> Iterator[None]:
    """Set the time limit for everything that the block calls."""
    token = _left.set(left)
    try:
        yield
    finally:
        _left.reset(token)


def seconds_left() -> SecondsLeft | None:
    """Return the time-left function of the surrounding call. None if it has no limit."""
    return _left.get()
