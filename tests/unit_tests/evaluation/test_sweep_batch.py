"""A sweep's teacher pass by the batch endpoint: its requests out, its results in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from support.batches import failed, result, run_batch
from support.models.saying import Adding

from langchain_gkt import GuidedKnowledgeTransferChain, RecordedTeacher
from langchain_gkt.evaluation import Task
from langchain_gkt.evaluation.batch import write_batch

TASK = Task(
    "sums",
    [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)],
    metric=lambda text, row: row["answer"] in text,
    max_tokens=50,
    stop=("Q:",),
)


def requests(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    teacher = ChatOpenAI(model="gpt-4o-mini", api_key="none")  # type: ignore[arg-type]
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), temperature=0)
    (file,) = write_batch(chain, TASK, tmp_path / "ask.jsonl")
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def test_whole_answers_are_asked_for_and_replayed(tmp_path: Path) -> None:
    file, rows = requests(tmp_path)
    assert [row["custom_id"] for row in rows] == [TASK.row_key(i) for i in range(3)]
    body = rows[0]["body"]
    assert (body["max_completion_tokens"], body["temperature"], body["stop"]) == (50, 0, ["Q:"])
    assert body["logprobs"] is True
    run_batch(file, tmp_path / "out.jsonl", lambda n, row: [result(row, n, finish="stop")])
    with pytest.warns(UserWarning, match="cut approximately"):
        teacher = RecordedTeacher.from_file(tmp_path / "out.jsonl", requests=file)
    teacher.require(TASK.prompt(row) for row in TASK.rows)
    found = teacher.invoke(TASK.prompt(TASK.rows[1]))
    assert found.usage_metadata is not None
    assert (found.text, found.usage_metadata["input_tokens"]) == ("It is 7.", 100)


def test_a_result_file_with_errors_names_them(tmp_path: Path) -> None:
    file, _ = requests(tmp_path)
    run_batch(file, tmp_path / "out.jsonl", lambda n, row: [failed(row)] if n == 1 else [])
    with pytest.raises(ValueError, match=r"out.jsonl, line 1 is a failed request"):
        RecordedTeacher.from_file(tmp_path / "out.jsonl", requests=file)
    run_batch(
        file, tmp_path / "out.jsonl", lambda n, row: [result(row, n, finish="stop")] if n else []
    )
    with pytest.warns(UserWarning, match="cut approximately"):
        teacher = RecordedTeacher.from_file(tmp_path / "out.jsonl", requests=file)
    with pytest.raises(ValueError, match=r"1 of 3 questions have no recorded answer.*'0 \+ 1\?'"):
        teacher.require(TASK.prompt(row) for row in TASK.rows)
