"""vLLM as the student of a bulk job, killed twice: no row is lost, and none is paid for twice."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
from support.bulk import GUIDANCE_TOKENS, PRICE, PROMPT_TOKENS, read_lines
from support.models import real_models

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "programs" / "bulk_vllm.py"
CALL = (PROMPT_TOKENS * PRICE.input_mtok + GUIDANCE_TOKENS * PRICE.output_mtok) / 1_000_000
COUNT, IN_FLIGHT = 40, 4
_START_SECONDS = 3600.0  # a hang, however busy the machine is


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the job in the environment that has vLLM, or skip."""
    python = Path(os.environ.get("GKT_VLLM", "") or "-") / "bin" / "python"
    if not python.is_file():
        pytest.skip("vLLM was not run: GKT_VLLM names no environment; `make test-vllm` makes one")
    if subprocess.run([str(python), "-c", "import ray.data"], capture_output=True).returncode:
        pytest.skip("Ray's vLLM processor was not run: GKT_VLLM has no ray[data]")
    try:
        model = str(real_models.smollm2())
    except real_models.NotAvailable as reason:
        pytest.skip(str(reason))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # On a busy machine workers take long to start, and Ray starts others in their place.
        "RAY_worker_register_timeout_seconds": "900",
    }
    command = [str(python), str(PROGRAM), str(folder), model, str(COUNT)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def children(job: subprocess.Popen[bytes], title: str = "") -> list[psutil.Process]:
    """Return the processes that a job has started, Ray's and vLLM's, by what their title holds."""
    found = []
    for process in psutil.Process(job.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes)


def wait_for(job: subprocess.Popen[bytes], folder: Path, reached: Callable[[], bool]) -> None:
    until = time.monotonic() + _START_SECONDS
    while not reached():
        log = folder / "log.txt"
        assert job.poll() is None, f"the job has ended: {log.read_text()[-3000:]}"
        assert time.monotonic() < until, f"the job hangs: {log.read_text()[-3000:]}"
        time.sleep(0.05)


def test_a_killed_job_resumes_and_a_killed_engine_is_replaced(tmp_path) -> None:
    def written() -> int:
        return len(list((tmp_path / "answers").glob("*.parquet")))

    def asked() -> Counter[str]:
        return Counter(line["prompt"] for line in read_lines(tmp_path / "ledger"))

    job = start(tmp_path)
    started: list[psutil.Process] = []
    try:
        wait_for(job, tmp_path, lambda: written() >= 1 and len(asked()) >= 12)
        started += children(job)
        job.kill()
        job.wait()
        end(started)  # the engine's own process may outlive its actor
        begun = written()
        assert 12 <= len(asked()) < COUNT
        job = start(tmp_path)
        wait_for(job, tmp_path, lambda: written() > begun)
        started = children(job)
        (engine,) = children(job, "vLLMEngineStageUDF")
        engine.kill()
        assert written() * 4 < COUNT
        assert job.wait(_START_SECONDS) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    finally:
        if job.poll() is None:
            started += children(job)
            job.kill()
            job.wait()
        end(started)
    done = json.loads((tmp_path / "result.json").read_text())
    rows, report = done["rows"], done["report"]
    assert sorted(row["id"] for row in rows) == list(range(COUNT))
    assert not any(row["error"] for row in rows)
    assert all(row["model"] == "gpt-4o" for row in rows)
    for row in rows:
        by_teacher = "finish" in row["prompt"]
        assert row["finished_by"] == ("teacher" if by_teacher else "student")
        assert row["answer"].startswith("It is done." if by_teacher else "one two three")
        assert bool(row["student_completion_tokens"]) is not by_teacher
    assert sum(Decimal(row["teacher_cost"]) for row in rows) == COUNT * CALL
    assert Decimal(report["teacher"]["cost"]) == COUNT * CALL
    assert len(asked()) == COUNT
    again = sum(number - 1 for number in asked().values())
    assert again <= report["lost_calls"] <= IN_FLIGHT  # calls under way when the driver was killed
