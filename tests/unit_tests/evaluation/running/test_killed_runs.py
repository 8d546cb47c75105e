"""Runs whose process is killed with ``kill -9``, and that the same call continues."""

from __future__ import annotations

import json

import pytest
from support.models.exam import PRICE, diary_lines, lasting_lines, pair, task
from support.programs.interruptions import run_killed

from langchain_gkt.evaluation import compare, load_run, sweep
from langchain_gkt.evaluation.running.run_store import MANIFEST


@pytest.mark.slow
def test_a_comparison_survives_kill_9_and_pays_for_nothing_twice(forks, tmp_path) -> None:
    call = "compare(chain, task(8), teacher_price=PRICE, out=sys.argv[1], concurrency=1)"
    printed = run_killed(forks, tmp_path / "run", call, 3, 8, 3)
    whole = compare(pair(), task(8), teacher_price=PRICE)
    assert lasting_lines(printed.rstrip()) == lasting_lines(whole)
    paid = diary_lines(tmp_path / "run.diary")
    assert sorted(paid) == sorted([f"{n} {m}" for n in range(10, 18) for m in (None, 6)])
    manifest = json.loads((tmp_path / "run" / MANIFEST).read_text())
    assert len(manifest["sessions"]) == 4
    # Twice the teacher had answered when the process died over the student's part.
    assert sum(answer.replayed for answer in load_run(tmp_path / "run").answers) == 2


@pytest.mark.slow
def test_a_sweep_survives_kill_9(forks, tmp_path) -> None:
    call = "sweep(chain, task(6), lengths=[2, 6, 12], out=sys.argv[1], concurrency=1)"
    printed = run_killed(forks, tmp_path / "run", call, 4, 5, 3)
    assert len(diary_lines(tmp_path / "run.diary")) == 6
    whole = sweep(pair(), task(6), lengths=[2, 6, 12])
    seconds = slice(-6, None)  # the last column

    def lines(text: str) -> list[str]:
        return [line[: seconds.start] for line in text.splitlines()]

    assert lines(printed.rstrip()) == lines(str(whole))
    more = sweep(pair(), task(6), lengths=[2, 8], out=tmp_path / "run")
    assert list(more.by_length) == [0, 2, 6, 8, 12]
    assert str(load_run(tmp_path / "run")) == str(more)
