"""CircuitBreaker: stops calling a teacher that keeps failing, for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_callback_manager_for_config

from langchain_gkt.costs.observer import observers_in
from langchain_gkt.errors import (
    BudgetExceeded,
    ConfigurationError,
    TeacherError,
    bounded,
    is_number,
    whole_number,
)
from langchain_gkt.teachers.refusals import is_refusal

# Statuses by which a server refuses everybody for now, or this key.
_OUTAGES = {401, 403, 408, 425, 429}
_MAX_REASON = 200


class CircuitBreaker:
    """Counts a teacher's failures in a row, and refuses its calls for a while after too many.

    ``closed``: every call is made. ``open``: after ``failures`` calls in a row have failed, none is
    made for ``cooldown_seconds``. Each raises a TeacherError at once, or the student answers it
    with ``on_teacher_error="student"``. ``half_open``: then one call is made. If it fails, the
    breaker opens once more, else it closes. A request that the server refuses as wrong (a status
    like 400) or that a budget refuses does not count as a failure.

    Chains with the same breaker share its state. Copies of a chain do. It is safe to use from any
    thread and event loop.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        cooldown_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        rest: float | None = None,
    ) -> None:
        """Start closed.

        Args:
            failures: How many calls in a row have to fail.
            cooldown_seconds: How many seconds the teacher is then not called.
            clock: Returns the time in seconds. Tests may move their own.
            rest: Another name of ``cooldown_seconds``.

        Raises:
            ValueError: If a number makes no sense.
        """
        whole_number("CircuitBreaker.failures", failures, least=1)
        seconds = cooldown_seconds if rest is None else rest
        if not is_number(seconds) or not seconds > 0:
            raise ValueError(
                f"CircuitBreaker.cooldown_seconds must be a number above 0, not {seconds!r}"
            )
        self._failures, self._cooldown, self._clock = failures, float(seconds), clock
        self._lock = threading.Lock()
        self._in_a_row, self._opened, self._refused = 0, 0, 0
        self._open_until: float | None = None
        self._trying = False
        self._last_failure: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CircuitBreaker:
        """Return this very breaker, because its state is shared."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings. Another process learns by itself."""
        made = partial(type(self), failures=self._failures, cooldown_seconds=self._cooldown)
        return made, ()

    def __repr__(self) -> str:
        """Show the settings and the state."""
        settings = f"failures={self._failures}, cooldown_seconds={self._cooldown:g}"
        return f"CircuitBreaker({settings}, {self.state})"

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``."""
        with self._lock:
            return self._state()

    def _state(self) -> str:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a report.

        Returns:
            ``state``, ``failures_in_a_row``, ``opened`` (how often it opened), ``refused_calls``,
            ``seconds_left`` until the teacher is called again, and ``last_failure``.
        """
        with self._lock:
            return {
                "state": self._state(),
                "failures_in_a_row": self._in_a_row,
                "opened": self._opened,
                "refused_calls": self._refused,
                "seconds_left": self._seconds_left(),
                "last_failure": self._last_failure,
            }

    def _seconds_left(self) -> float:
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Guard a call of the teacher, and learn from its end.

        Raises:
            TeacherError: If the breaker is open. Nothing was paid.
        """
        is_trial, period = self._admit()
        failed: bool | None = None  # None if unknown: a cancelled call says nothing
        reason = ""
        try:
            yield
            failed = False
        except Exception as error:
            failed = is_outage(error)
            reason = bounded(f"{type(error).__name__}: {error}", _MAX_REASON)
            raise
        finally:
            self._learn(failed, reason, is_trial=is_trial, period=period)

    def _admit(self) -> tuple[bool, int]:
        with self._lock:
            if self._open_until is None:
                return False, self._opened
            if self._clock() >= self._open_until and not self._trying:
                self._trying = True
                return True, self._opened
            self._refused += 1
            left = self._seconds_left()
            error = TeacherError(
                f"the teacher is left alone: {self._in_a_row} calls in a row have failed, the "
                f"last with {self._last_failure}",
                hint=f"it is asked again in {left:.0f} s; see circuit_breaker, or set "
                "on_teacher_error='student' to have the student answer meanwhile",
                retryable=True,
            )
        error.retry_after = left
        raise error

    def _learn(self, failed: bool | None, reason: str, *, is_trial: bool, period: int) -> None:
        with self._lock:
            if is_trial:
                self._trying = False
            elif period != self._opened or self._open_until is not None:
                return  # the call began before the breaker opened
            if failed is None:
                return
            if not failed:
                self._in_a_row, self._open_until = 0, None
                return
            self._in_a_row += 1
            self._last_failure = reason
            if is_trial or self._in_a_row >= self._failures:
                self._opened += 1
                self._open_until = self._clock() + self._cooldown


def is_outage(error: Exception) -> bool:
    """Whether the error of a teacher's call means that it is down for everybody.

    Not so are errors of the caller's own doing: a budget, a wrong request, a refused text.
    """
    if isinstance(error, BudgetExceeded | ConfigurationError) or is_refusal(error):
        return False
    response = getattr(error, "response", None)
    own_status = getattr(error, "status", None) or getattr(error, "status_code", None)
    status = own_status or getattr(response, "status_code", None)
    return not isinstance(status, int) or status >= 500 or status in _OUTAGES


@contextmanager
def guarded(
    breaker: CircuitBreaker | None, models: list[Any], config: RunnableConfig
) -> Iterator[None]:
    """Let a breaker, if there is one, decide about a call. Report it to the run's observers.

    Raises:
        TeacherError: If the breaker is open.
    """
    if breaker is None:
        yield
        return
    for observer in observers_in(get_callback_manager_for_config(config).handlers):
        observer.add_breaker(models, breaker)
    with breaker.attempt():
        yield
