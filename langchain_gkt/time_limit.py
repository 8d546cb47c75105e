"""The time by which the call that is being made has to end, for whatever runs inside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float | None] = ContextVar("gkt_end_of_call", default=None)


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


@contextmanager
def ends_at(end: float | None) -> Iterator[None]:
    """Tell whatever is called inside by when it has to end.

    Args:
        end: The time, in seconds of `time.monotonic`; None for no limit.
    """
    token = _end.set(end)
    try:
        yield
    finally:
        _end.reset(token)


def end_of_call() -> float | None:
    """Return by when the surrounding call has to end, in seconds of `time.monotonic`, or None."""
    return _end.get()


def seconds_until(end: float | None) -> float | None:
    """Return how many seconds are left.

    Args:
        end: What `end_of_call` returned.

    Returns:
        Seconds, 0 or more; None if there is no limit.
    """
    return None if end is None else max(0.0, end - time.monotonic())
