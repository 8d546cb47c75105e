"""The central actor of a job. It knows the rate limit, the budget, and the paid calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from langchain_gkt.bulk.store import GuidanceStore
from langchain_gkt.costs.budget import Budget, Ledger, Reservation
from langchain_gkt.costs.totals import UsageTotals
from langchain_gkt.errors import BudgetExceeded

_LEASE_SECONDS = 900.0
"""After this long an unfinished call counts as lost."""


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Settings in which all datasets of one job must agree. Most are as for `BulkOptions`.

    Attributes:
        stable_rows: Whether rows have the same names in every session.
        run: Names this session.
    """

    budget: Budget | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    checkpoint: str | Path | None = None
    stable_rows: bool = False
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A row's permission.

    Attributes:
        reply: A recorded reply to use instead of a call.
        carries: Whether the row carries the cost of that reply.
        busy: Whether another row has just sent the same request. Ask again a little later.
        wait: Seconds to wait before the call.
        refused: Why no call is allowed.
        student_may_answer: Whether the student may answer alone then.
    """

    reply: str | None = None
    carries: bool = False
    busy: bool = False
    wait: float = 0.0
    refused: str | None = None
    student_may_answer: bool = False


class RateLimiter:
    """Gives each call the time at which it may start, evenly spaced.

    It never waits itself, so one limiter can serve any number of callers (the generic cell rate
    algorithm, ITU-T I.371, without a burst).
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing used. None is no limit. The clock is monotonic."""
        self._request_seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next = {"requests": 0.0, "tokens": 0.0}

    def delay(self, tokens: int) -> float:
        """Take the next turn. Returns the seconds to wait before a call of at most these tokens."""
        now = self._clock()
        start = max(now, *self._next.values())
        self._next["requests"] = start + self._request_seconds
        self._next["tokens"] = start + tokens * self._token_seconds
        return start - now


class JobController:
    """One of these runs in each job, as a named actor. None of its methods wait."""

    def __init__(self, settings: JobSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Resume the job at its checkpoint. The clock is monotonic."""
        self._settings, self._clock = settings, clock
        self._store = GuidanceStore(
            settings.checkpoint, run=settings.run, stable_rows=settings.stable_rows
        )
        self._limiter = RateLimiter(
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            clock=clock,
        )
        self._ledger = Ledger(settings.budget) if settings.budget else None
        self._totals = {"teacher": UsageTotals(), "student": UsageTotals()}
        self._in_flight: dict[str, tuple[str, float]] = {}
        self._from_checkpoint = 0
        for role, totals in self._store.bills():
            self._count(role, totals, "")

    def settings(self) -> JobSettings:
        """Return the settings with which the job began."""
        return self._settings

    def admit(self, key: str, row: str, most: Reservation, joins: bool = False) -> Admission:
        """Decide for a row: use a recorded reply, ask the teacher, or neither.

        Args:
            key: The key of the row's guidance.
            row: The row's name. The same if the row is tried again.
            most: The maximum cost of a call.
            joins: Whether the row joins a call that another row has been admitted for.

        Returns:
            The permission. `settle` must end a permitted call.
        """
        if (reply := self._store.find(key)) is not None:
            self._from_checkpoint += 1
            return Admission(reply=reply, carries=self._store.carries(key, row))
        holder, since = self._in_flight.get(key, (row, 0.0))
        if holder != row and self._clock() - since < _LEASE_SECONDS:
            return Admission(busy=True)
        if joins:
            self._in_flight[key] = (row, self._clock())
            return Admission()
        if self._ledger is not None:
            try:
                self._ledger.reserve(key, most, Decimal(0))
            except BudgetExceeded as error:
                return Admission(refused=str(error), student_may_answer=error.student_may_answer)
        wait = self._limiter.delay(most.tokens)
        self._store.begin(key)
        self._in_flight[key] = (row, self._clock() + wait)
        return Admission(wait=wait)

    def settle(self, call: str, key: str, row: str, totals: UsageTotals, reply: str | None) -> None:
        """End a call, and record its cost and its reply, which is None if it failed.

        ``call`` names the call. One that is settled twice counts once.
        """
        if self._store.add(call, "teacher", totals, key=key, reply=reply):
            self._count("teacher", totals, key)
        if reply is not None:
            self._store.carries(key, row)
        self._in_flight.pop(key, None)
        if self._ledger is not None:
            self._ledger.release(key)

    def spend_student(self, source: str, totals: UsageTotals) -> None:
        """Add the student's usage for some rows, which ``source`` names.

        Rows that are reported twice, because they were tried twice, count once.
        """
        source = f"{self._settings.run}:{source}"
        if self._store.add(source, "student", totals, reply=None):
            self._count("student", totals, source)

    def report(self) -> dict[str, Any]:
        """Return the job's bill.

        Returns:
            ``teacher`` and ``student`` (see `UsageTotals`), ``budget`` (None without one),
            ``in_flight`` (running calls), ``lost_calls`` (calls whose process was killed, which may
            have been billed and are in no sum) and ``from_checkpoint`` (rows that needed no call).
            Money is a decimal string in US dollars.
        """
        return {
            **bill_of(self._store, self._totals),
            "budget": self._ledger.to_dict() if self._ledger else None,
            "from_checkpoint": self._from_checkpoint,
        }

    def close(self) -> None:
        """Close the checkpoint, so that another may open it."""
        self._store.close()

    def _count(self, role: str, totals: UsageTotals, call_id: str) -> None:
        self._totals[role].add(totals)
        if self._ledger is not None:
            self._ledger.spend(role, totals, call_id)


def bill_of(store: GuidanceStore, totals: Mapping[str, UsageTotals]) -> dict[str, Any]:
    """Return the part of `JobController.report` that a store and its sums by role can report."""
    sums = {role: counts.to_dict() for role, counts in totals.items()}
    return {**sums, "in_flight": store.in_flight, "lost_calls": store.lost_calls}
