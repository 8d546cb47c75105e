"""The script that makes the page of real results, on the embedded pair."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.programs.processes import run_script

from langchain_gkt import evaluation
from langchain_gkt.demo.pair import STUDENT, TEACHER
from langchain_gkt.evaluation import Task, load_task

SCRIPT = Path(__file__).parents[3] / "examples" / "real_models" / "results.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_leaves_a_summary_from_which_the_page_is_written(tmp_path, monkeypatch) -> None:
    def short(*args: Any, **given: Any) -> Task:  # toys go on and on about such prompts
        return replace(load_task(*args, **given), max_tokens=36)

    monkeypatch.setattr(evaluation, "load_task", short)
    rows = load_task("word_problems", rows=5).rows
    lines = [
        json.dumps({"question": row["question"], "answer": f"#### {row['answer']}"}) for row in rows
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "summaries", "docs")]
    models = [f"--teacher={TEACHER}", f"--student={STUDENT}", f"--gsm8k={tmp_path / 'rows.jsonl'}"]
    options = ["--rows=5", "--shots=1", "--dtype=float32", "--lengths", "6", "18"]
    options += ["--again", "6"]
    run_script(SCRIPT, *places, *models, *options)
    pages = tmp_path / "docs" / "measurements"
    page = pages / "real-models.md"
    overview = page.read_text()
    assert "(real-models/gsm8k-1-shot-teacher-student.md)" in overview
    first = (pages / "real-models" / "gsm8k-1-shot-teacher-student.md").read_text()
    kept = json.loads((tmp_path / "summaries" / "gsm8k-1-shot-teacher-student.json").read_text())
    assert kept["rows"] == 5
    assert "Run by transformers and torch" in first
    assert set(kept["policies"]) == {"whole", "short", "brief", "plain"}
    assert set(kept["policies"]["short"]["ways"]) == {"0", "6", "18", "all"}
    for line, points in kept["frontier"].items():
        assert points and all(0 <= accuracy <= 1 for _, accuracy in points), line
    assert re.search(r"\| whole \| teacher alone \| \d+\.\d%", first)
    assert (tmp_path / "docs" / "images" / "real-gsm8k-1-shot-teacher-student.svg").exists()
    assert [way["more"] for way in kept["again"]["ways"]] == 3 * [20, 40, "all"]
    asked = [way["asked"] for way in kept["again"]["ways"][::3]]
    assert 0 < asked[0] <= asked[1] <= asked[2] <= 1
    assert "A second request where a step begins unsurely (short, 5 rows)" in first
    whole_run = tmp_path / "runs" / "gsm8k-1-shot-teacher-student"
    for name, begun in (("answers-none", "lines.jsonl"), ("has-no-policy", "manifest.json")):
        shutil.copytree(whole_run, whole_run.with_name(name))
        for file in whole_run.with_name(name).glob(f"*/{begun}"):
            file.write_text("") if begun == "lines.jsonl" else shutil.rmtree(file.parent)
    page.unlink()
    run_script(SCRIPT, *places)
    assert page.read_text() == overview  # a run without a guided answer adds nothing
    (tmp_path / "runs").rename(tmp_path / "gone")  # the summaries are enough
    run_script(SCRIPT, *places)
    assert page.read_text() == overview
