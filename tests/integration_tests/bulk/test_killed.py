"""Killed actors and killed drivers: no row is lost, and none is paid for twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from support.bulk import GUIDANCE_TOKENS, PRICE, PROMPT_TOKENS, read_lines
from support.programs import bulk_driver

from langchain_gkt.bulk import guide_dataset, read_report

CALL = (PROMPT_TOKENS * PRICE.input_mtok + GUIDANCE_TOKENS * PRICE.output_mtok) / 1_000_000


def wait_for_lines(file: Path, count: int) -> int:
    """Wait until a file has some lines; return the process that wrote the last one."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if len(lines := read_lines(file)) >= count:
            return int(lines[-1]["pid"])
        time.sleep(0.01)
    raise AssertionError(f"{file} has {len(read_lines(file))} lines")


@pytest.mark.parametrize("which", ["ledger", "log"])  # the teacher's actor, the student's
def test_a_killed_actor_is_replaced(job, cluster, which) -> None:
    prompts = [f"question {i}" for i in range(32)]
    out = guide_dataset(
        cluster.data.from_items([{"q": prompt} for prompt in prompts]),
        job.chain(seconds=0.1, student_seconds=0.05),
        prompt_column="q",
        teacher_price=PRICE,
        calls_in_flight=4,
        rows_per_block=8,
        checkpoint=job.folder / "checkpoint",
    )

    def kill() -> None:
        os.kill(wait_for_lines(job.folder / which, 10), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = out.take_all()
    killer.join()
    assert len({line["pid"] for line in read_lines(job.folder / which)}) == 2
    assert sorted(row["q"] for row in rows) == sorted(prompts)
    assert all(row["answer"] == f"one two three ({row['q']})" for row in rows)
    assert sum(row["cost"] for row in rows) == 32 * CALL
    report = read_report(job.folder / "checkpoint")
    assert Decimal(report["teacher"]["cost"]) == 32 * CALL
    again = [count - 1 for count in Counter(job.asked).values() if count > 1]
    # Only calls that were under way when their process died are made again.
    assert sum(again) <= report["lost_calls"] <= (4 if which == "ledger" else 0)


def test_a_killed_driver_resumes_where_it_was(job, cluster) -> None:
    count, folder = 24, job.folder
    address = cluster.get_runtime_context().gcs_address
    command = [sys.executable, bulk_driver.__file__, address, str(folder), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_for_lines(folder / "log", 5)
    finally:
        driver.kill()
        driver.communicate()
    _wait_until_quiet(folder)
    asked = Counter(job.asked)
    assert 5 <= len(asked) < count
    out = guide_dataset(
        cluster.data.from_items([{"id": i, "q": f"question {i}"} for i in range(count)]),
        job.chain(seconds=0.2),
        prompt_column="q",
        teacher_price=PRICE,
        checkpoint=folder / "checkpoint",
    )
    rows = out.take_all()
    assert sorted(row["id"] for row in rows) == list(range(count))
    assert all(row["answer"] == f"one two three ({row['q']})" for row in rows)
    assert sum(row["cost"] for row in rows) == count * CALL
    report = read_report(folder / "checkpoint")
    assert Decimal(report["teacher"]["cost"]) == count * CALL
    again = sum(number - 1 for number in Counter(job.asked).values())
    assert again <= report["lost_calls"] <= 4  # of the killed driver: its calls in flight


def _wait_until_quiet(folder: Path) -> None:
    """Wait until the killed driver's actors are gone, too."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 1.0:
        if (now := len(read_lines(folder / "ledger"))) != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)
