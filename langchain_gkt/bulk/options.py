"""The options of a bulk job, checked before anything is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from langchain_gkt.costs import BillingScenario, Budget, MachineTime
from langchain_gkt.costs.budget import price_for
from langchain_gkt.costs.prices import Prices, check_price, refuse_unlisted
from langchain_gkt.costs.role_prices import RolePrices
from langchain_gkt.errors import refuse_unknown, whole_number


@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """Options of a bulk job. `guide_dataset` takes them as keyword arguments.

    Attributes:
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        scenario: As for `CostTracker`. Name the cached prefix: ``CachedPrefix(tokens=)``.
        budget: A single one for the whole job. Only calls in flight can exceed it.
        requests_per_minute: The teacher's rate limit for the whole job. None for none.
        tokens_per_minute: The same in tokens, by an upper estimate of each call. None for none.
        calls_in_flight: Maximum number of teacher calls at the same time, in the whole job.
        teacher_workers: Actors that share these calls.
        questions_per_call: How many questions the teacher gets in one call. Packed questions share
            a prompt, and each gets a beginning of its own in the reply.
        attempts: How often a row's call is tried if the teacher fails. Each is paced and counted.
        students: Student actors: a number, or ``(least, most)`` to let Ray scale between them.
        student_cpus: CPUs that Ray reserves for each student actor. May be a fraction.
        student_gpus: GPUs for each, likewise.
        rows_per_block: Rows that go through the stages together, and that are written together.
        checkpoint: A folder on the driver's machine that keeps what was paid for. A job that is
            restarted with it pays for nothing twice. None to keep it while the job lives.
        id_column: A column whose values name the rows, for the cost columns of repeated prompts.
            One of these rows carries the cost, in every session the same.
        job: A name. Datasets of one driver with the same job share its limits and budget, and
            `job_report` finds it by this name. None to name it by its checkpoint's path, or,
            without one, to keep it for this dataset alone.
        processor: The configuration of Ray's vLLM processor, which is the student then.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value makes no sense.
    """

    teacher_price: Prices = None
    student_price: Prices | MachineTime = None
    scenario: BillingScenario | None = None
    budget: Budget | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    calls_in_flight: int = 16
    teacher_workers: int = 1
    questions_per_call: int = 1
    attempts: int = 3
    students: int | tuple[int, int] = 1
    student_cpus: float = 1.0
    student_gpus: float = 0.0
    rows_per_block: int = 64
    checkpoint: str | Path | None = None
    id_column: str | None = None
    job: str | None = None
    processor: Any = None

    def __post_init__(self) -> None:
        """Check each value."""
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise TypeError(f"budget must be a Budget(usd='5'), not {type(self.budget).__name__}")
        teacher_price = price_for(self.budget, self.teacher_price, self.scenario)
        object.__setattr__(self, "teacher_price", teacher_price)
        check_price(self.teacher_price, "teacher_price")
        check_price(self.student_price, "student_price", machine_time=True)
        refuse_unlisted(self.teacher_price, "teacher_price")
        refuse_unlisted(self.student_price, "student_price")
        _ = self.role_prices  # refuses a scenario that contradicts the price
        refuse_unlisted(self.scenario and self.scenario.price, "scenario.price")
        counts = ("calls_in_flight", "teacher_workers", "attempts", "rows_per_block")
        for name in (*counts, "questions_per_call"):
            whole_number(name, getattr(self, name), least=1)
        if self.teacher_workers > self.calls_in_flight:
            raise ValueError(
                f"teacher_workers={self.teacher_workers} share calls_in_flight="
                f"{self.calls_in_flight}; give each at least one call"
            )
        if self.questions_per_call > self.rows_per_block:
            raise ValueError(
                f"questions_per_call={self.questions_per_call} is more than rows_per_block="
                f"{self.rows_per_block}, which travel together; raise rows_per_block"
            )
        for name in ("requests_per_minute", "tokens_per_minute"):
            _check_number(name, getattr(self, name), above=True)
        for name in ("student_cpus", "student_gpus"):
            _check_number(name, getattr(self, name), above=False)
        least, most = self.student_range
        whole_number("students", least, least=1)
        whole_number("students", most, least=least, meaning="(least, most)")
        if self.processor is not None and isinstance(self.student_price, MachineTime):
            raise ValueError(
                "student_price: Ray's processor does not report how long a machine was busy; give "
                "a Price, or None"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> BulkOptions:
        """Take keyword arguments.

        Raises:
            TypeError: If one is unknown.
        """
        refuse_unknown(given, (option.name for option in fields(cls)), "guide_dataset")
        return cls(**given)

    @property
    def role_prices(self) -> RolePrices:
        """The prices of both models."""
        return RolePrices(
            teacher=self.teacher_price, student=self.student_price, scenario=self.scenario
        )

    @property
    def student_range(self) -> tuple[int, int]:
        """The minimum and maximum of student actors."""
        if isinstance(self.students, int):
            return self.students, self.students
        if len(self.students) != 2:
            raise ValueError(f"students must be a number or (least, most), not {self.students}")
        least, most = self.students
        return least, most

    @property
    def calls_per_worker(self) -> int:
        """Maximum calls in flight of one teacher actor. Together they keep to the job's limit."""
        return max(1, self.calls_in_flight // self.teacher_workers)


def _check_number(name: str, value: object, *, above: bool) -> None:
    if value is None and above:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if value < 0 or (above and value == 0):
        raise ValueError(f"{name} must be {'above' if above else 'at least'} 0, not {value}")
