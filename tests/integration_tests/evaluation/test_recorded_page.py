"""The script that makes the page of recorded teachers, on the embedded pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.programs.processes import run_script

from langchain_gkt import AgreementGate, GuidedKnowledgeTransferChain, RecordedTeacher
from langchain_gkt.costs import Price
from langchain_gkt.demo.pair import STUDENT
from langchain_gkt.evaluation import load_task, sweep

SCRIPT = Path(__file__).parents[3] / "examples" / "real_models" / "recorded.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cut approximately:UserWarning")
def test_runs_leave_summaries_from_which_the_page_is_written(tmp_path, capsys) -> None:
    task = load_task("word_problems", rows=8)
    answers = {row["question"]: f"The answer is {row['answer']}." for row in task.rows}
    teacher = RecordedTeacher.from_answers(answers, model_name="big")
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=STUDENT, max_tokens=60)
    sweep(
        chain,
        task,
        lengths=[0, 4],
        gates=[AgreementGate(samples=5)],
        teacher_price=Price(input_mtok="1", output_mtok="4"),
        out=tmp_path / "runs" / "words-big-student",
        progress=False,
        concurrency=40,  # a batch costs little more than one
    )
    chain.student.close()
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "summaries", "docs")]
    run_script(SCRIPT, *places)
    page = (tmp_path / "docs" / "measurements" / "recorded-teachers.md").read_text()
    kept = json.loads((tmp_path / "summaries" / "words-big-student.json").read_text())
    assert kept["right"]["teacher"] == 1
    assert sum(rows for rows, _ in kept["agreeing"]) <= 8
    assert kept["dearer"]["dollars_per_thousand"] < kept["dollars_per_thousand"]
    assert list(kept["prefixes"]) == ["4"]
    assert "The teacher's first tokens, continued by the student, are " in page
    assert "The teacher's first tokens, continued by the student (over router)" in page
    assert (
        "word_problems, 8 rows, student after big: at bills from 10% to 90%, agreement is" in page
    )
    assert (tmp_path / "docs" / "images" / "recorded-words-big-student.svg").exists()
    with pytest.raises(SystemExit):
        run_script(SCRIPT, "--runs=none", f"--summaries={tmp_path / 'none'}")
    assert "there is no run in none" in capsys.readouterr().err
