"""The time by which the call that is being made has to end, for whatever runs inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SecondsLeft = Callable[[], float]
"""Says how many seconds a call has left, 0 or more."""

_left: ContextVar[SecondsLeft | None] = ContextVar("gkt_seconds_left", default=None)


class OutOfTime(TimeoutError):
    """The time of a call is over.

    Attributes:
        queued: Whether the request still waited for its turn.
    """

    def __init__(self, message: str, *, queued: bool = False) -> None:
        """Say what was being waited for.

        Args:
            message: What took too long.
            queued: Whether the request still waited for its turn.
        """
        super().__init__(message)
        self.queued = queued


def time_over(error: BaseException) -> OutOfTime | None:
    """Find out whether an error only says that the time of the call is over.

    Args:
        error: Any error.

    Returns:
        The error, or its cause, if it says so. Else None.
    """
    for cause in (error, error.__cause__):
        if isinstance(cause, OutOfTime):
            return cause
    return None


@contextmanager
def limited_to(left: SecondsLeft) -> Iterator[None]:
    """Tell whatever is called inside how much time is left.

    Args:
        left: Says so.
    """
    token = _left.set(left)
    try:
        yield
    finally:
        _left.reset(token)


def seconds_left() -> SecondsLeft | None:
    """Return what says how much time the surrounding call has left. None if it has no limit."""
    return _left.get()
