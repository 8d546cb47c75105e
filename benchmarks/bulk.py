"""Measure bulk inference on a small local Ray, and predict larger ones with a queueing model.

``python -m benchmarks.bulk`` needs the extra ``ray``. The teacher and the student are models of set
service times, so that the pipeline is measured and not the machine's load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from rich.console import Console
from rich.table import Table

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.bulk import guide_dataset
from langchain_gkt.bulk.controller import JobController, JobSettings
from langchain_gkt.costs.budget import Reservation
from langchain_gkt.costs.totals import UsageTotals

TEACHER_SECONDS, STUDENT_SECONDS, ROWS_PER_BLOCK = 0.2, 0.02, 8
PRICE = Price(input_mtok="0.15", output_mtok="0.60")
_USAGE = {"input_tokens": 100, "output_tokens": 40, "total_tokens": 140}
_LOCKS: dict[str, Any] = {}  # made in each actor: a lock cannot travel


class TimedModel(BaseChatModel):
    """A model of a set service time that writes down when each call ended."""

    seconds: float
    file: str
    serial: bool = False
    max_tokens: int | None = None

    @property
    def _llm_type(self) -> str:
        return "timed"

    def _answer(self) -> ChatResult:
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, f"{time.monotonic()}\n".encode())
        os.close(handle)
        message = AIMessage("some words of text ", usage_metadata=_USAGE)
        message.response_metadata = {"finish_reason": "length"}
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        if not self.serial:
            time.sleep(self.seconds)
            return self._answer()
        with _LOCKS.setdefault("one at a time", threading.Lock()):
            time.sleep(self.seconds)
            return self._answer()

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.sleep(self.seconds)
        return self._answer()


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The stations of a job, each with the most rows per second that it can pass.

    Attributes:
        calls_in_flight: Calls of the teacher at the same time.
        teacher_seconds: From a call to its reply.
        call_overhead: Seconds that a call's slot is taken beside that.
        students: Student actors.
        rows_per_student: Rows per second of one.
        requests_per_minute: The teacher's limit. None for none.
        tokens_per_minute: The same in tokens.
        tokens_per_row: The teacher's tokens of a row.
        controller_rows: Rows per second that the job's actor can admit and settle.
        network_mbit: Megabits per second to the teacher.
        bytes_per_row: Bytes of a request with its reply.
    """

    calls_in_flight: int
    teacher_seconds: float
    call_overhead: float
    students: int
    rows_per_student: float
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tokens_per_row: float = 140
    controller_rows: float = 1000.0
    network_mbit: float = 1000.0
    bytes_per_row: float = 8000.0

    @property
    def stations(self) -> dict[str, float]:
        """Rows per second of each station."""
        none = float("inf")
        return {
            "calls in flight": self.calls_in_flight / (self.teacher_seconds + self.call_overhead),
            "request limit": (self.requests_per_minute or none) / 60,
            "token limit": (self.tokens_per_minute or none) / 60 / self.tokens_per_row,
            "students": self.students * self.rows_per_student,
            "controller": self.controller_rows,
            "network": self.network_mbit * 1e6 / 8 / self.bytes_per_row,
        }

    @property
    def bottleneck(self) -> tuple[str, float]:
        """The station that saturates first, and its rows per second."""
        return min(self.stations.items(), key=lambda station: station[1])

    def rate(self, rows: int, block: int) -> float:
        """Return the rows per second of a finite job: filling and draining take their time.

        Args:
            rows: Rows of the job.
            block: Rows that move together.
        """
        steady = self.bottleneck[1]
        # The students begin with the first whole block, and end with the last one.
        first = self.teacher_seconds + block / self.stations["calls in flight"]
        last = block / self.rows_per_student
        return rows / (max(0.0, rows - block) / steady + first + last)


def measure(ray: Any, *, rows: int, calls: int, students: int) -> float:
    """Run one job and return its rows per second, from the first call to the last answer."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = f"{folder}/asked", f"{folder}/answered"

        def make() -> GuidedKnowledgeTransferChain:  # classes of a script travel in a function
            return GuidedKnowledgeTransferChain(
                teacher=TimedModel(seconds=TEACHER_SECONDS, file=asked),
                student=TimedModel(seconds=STUDENT_SECONDS, file=answered, serial=True),
                guidance_tokens=40,
            )

        data = ray.data.from_items([{"q": f"question {i}"} for i in range(rows)])
        out = guide_dataset(
            data,
            make,
            prompt_column="q",
            teacher_price=PRICE,
            calls_in_flight=calls,
            students=students,
            student_cpus=0.5,
            rows_per_block=ROWS_PER_BLOCK,
        )
        assert out.materialize().count() == rows
        begun = float(Path(asked).read_text().split()[0]) - TEACHER_SECONDS
        return rows / (max(map(float, Path(answered).read_text().split())) - begun)


def controller_rate(ray: Any, rows: int = 2000) -> dict[str, float]:
    """Measure how many rows a second the job's actor admits and settles, alone and over Ray."""
    totals = UsageTotals(calls=1, prompt_tokens=100, prompt_cost=Decimal("0.000015"))
    most, reply = Reservation(tokens=140, usd=None), json.dumps({"text": "some words " * 20})
    with tempfile.TemporaryDirectory() as folder:
        alone = JobController(JobSettings(checkpoint=f"{folder}/alone", run="1"))
        begun = time.perf_counter()
        for i in range(rows):
            alone.admit(f"key {i}", str(i), most)
            alone.settle(str(i), f"key {i}", str(i), totals, reply)
        found = {"alone": rows / (time.perf_counter() - begun)}
        alone.close()
        actor = ray.remote(num_cpus=0)(JobController).remote(
            JobSettings(checkpoint=f"{folder}/ray", run="1")
        )
        ray.get(actor.report.remote())
        begun = time.perf_counter()
        ray.get([actor.admit.remote(f"key {i}", str(i), most) for i in range(rows)])
        settled = [
            actor.settle.remote(str(i), f"key {i}", str(i), totals, reply) for i in range(rows)
        ]
        ray.get(settled)
        found["over Ray"] = rows / (time.perf_counter() - begun)
    return found


def predict(base: Pipeline, *, machine_usd: Decimal, rows: int) -> Table:
    """Predict 10, 100 and 1,000 student workers, with the bill of a million rows beside it."""
    table = Table(
        "workers", "limits", "rows/s", "hours", "saturates first", "teacher $", "machines $"
    )
    teacher = rows * (460 * PRICE.input_mtok + 40 * PRICE.output_mtok) / 1_000_000
    for workers in (10, 100, 1000):
        grown = replace(base, students=workers, calls_in_flight=max(64, 16 * workers))
        free = replace(grown, requests_per_minute=None, tokens_per_minute=None)
        for name, pipeline in (("yes", grown), ("none", free)):
            station, rate = pipeline.bottleneck
            hours = rows / rate / 3600
            machines = Decimal(hours) * workers * machine_usd
            table.add_row(
                f"{workers:,}",
                name,
                f"{rate:,.0f}",
                f"{hours:.2f}",
                station,
                f"{teacher:,.0f}",
                f"{machines:,.0f}",
            )
    return table


def main() -> None:
    """Measure the points, check the model against them, and print the predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--students", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    console, found = Console(width=110), dict[str, Any]()
    try:
        found["controller"] = controller_rate(ray)
        base = Pipeline(
            calls_in_flight=1,
            teacher_seconds=TEACHER_SECONDS,
            call_overhead=0.0,
            students=1,
            rows_per_student=1 / STUDENT_SECONDS,
            controller_rows=found["controller"]["over Ray"],
        )
        points = Table("students", "calls in flight", "rows/s", "model", "measured/model", "first")
        found["points"] = []
        for students in options.students:
            for calls in options.calls:
                rows = min(400, max(32, 24 * calls))
                rate = measure(ray, rows=rows, calls=calls, students=students)
                pipeline = replace(base, students=students, calls_in_flight=calls)
                model = pipeline.rate(rows, ROWS_PER_BLOCK)
                first = pipeline.bottleneck[0]
                shown = (f"{rate:.1f}", f"{model:.1f}", f"{rate / model:.2f}", first)
                points.add_row(str(students), str(calls), *shown)
                found["points"].append(
                    {
                        "students": students,
                        "calls": calls,
                        "rows": rows,
                        "rate": rate,
                        "model": model,
                    }
                )
                console.print(found["points"][-1])
    finally:
        ray.shutdown()
    console.print(found["controller"])
    console.print(points)
    large = replace(
        base,
        teacher_seconds=1.0,
        rows_per_student=10.0,
        requests_per_minute=10_000,
        tokens_per_minute=10_000_000,
        tokens_per_row=500,
    )
    console.print(predict(large, machine_usd=Decimal(2), rows=1_000_000))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
