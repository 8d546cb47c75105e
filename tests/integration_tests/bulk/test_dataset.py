"""guide_dataset on a real Ray: answers, the bill, failing rows, limits, bad input."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest
from pyarrow import parquet
from support.bulk import (
    GUIDANCE_TOKENS,
    PRICE,
    PROMPT_TOKENS,
    BilledTeacher,
    LoggedStudent,
    read_lines,
)
from support.models.fakes import MODELS, WordTeacher

from langchain_gkt import Budget, GuidedKnowledgeTransferChain, MachineTime
from langchain_gkt.bulk import guide_dataset, job_report

CALL = (PROMPT_TOKENS * PRICE.input_mtok + GUIDANCE_TOKENS * PRICE.output_mtok) / 1_000_000


def rows_of(dataset: Any) -> dict[str, dict[str, Any]]:
    return {row["q"]: row for row in dataset.take_all()}


def test_rows_are_answered_side_by_side_and_the_bill_is_a_group_by(job, cluster, tmp_path) -> None:
    prompts = [f"question {i}" for i in range(24)] + [f"finish {i}" for i in range(6)]
    prompts += ["question 1", "question 2", "refuse 1", "stumble 1", "choke 1", "", "finish 1"]
    data = cluster.data.from_items([{"q": q, "team": q.split(" ")[0]} for q in prompts])
    out = guide_dataset(
        data,
        job.chain(seconds=0.4),
        prompt_column="q",
        teacher_price=PRICE,
        student_price=MachineTime(usd_per_hour="3.60"),
        calls_in_flight=12,
        rows_per_block=12,
        attempts=2,
        job="bill",
    )
    out.write_parquet(str(tmp_path / "answers"))
    report = job_report("bill")
    table = parquet.read_table(tmp_path / "answers")
    assert len(list((tmp_path / "answers").iterdir())) > 1  # written block by block
    written = table.to_pylist()
    # No row is lost, whatever became of it.
    assert sorted(row["q"] for row in written) == sorted(prompts)
    rows = {row["q"]: row for row in written}
    assert rows["question 3"]["answer"] == "one two three (question 3)"
    assert rows["finish 3"]["answer"] == "It is done."
    assert rows["finish 3"]["finished_by"] == "teacher"
    assert not [prompt for prompt in job.finished if "finish" in prompt]
    assert "ConnectionError: scripted" in rows["refuse 1"]["error"]
    assert "RuntimeError: scripted" in rows["choke 1"]["error"]
    assert rows[""]["error"].startswith("ValueError: messages must hold some text")
    assert rows["stumble 1"]["answer"] == "one two three (stumble 1)"
    assert rows["stumble 1"]["teacher_calls"] == rows["refuse 1"]["teacher_calls"] == 2
    # Rows with the same prompt are paid for once, and one of them carries the cost.
    assert len(job.asked) == len(set(prompts) - {""}) + 2  # "refuse" and "stumble" twice
    paid = len(set(prompts) - {"", "refuse 1"})
    assert sum(row["teacher_cost"] or 0 for row in written) == paid * CALL
    assert Decimal(report["teacher"]["known_cost"]) == paid * CALL
    teams = table.group_by("team").aggregate([("teacher_cost", "sum")]).to_pylist()
    assert sum(team["teacher_cost_sum"] or 0 for team in teams) == paid * CALL
    machine = Decimal(report["student"]["machine_cost"])
    assert machine > 0
    assert abs(sum(row["student_cost"] or 0 for row in written) - machine) < Decimal("1e-15")
    most = _most_at_once(read_lines(job.folder / "ledger"), 0.4)
    assert 6 < most <= 12


def _most_at_once(lines: list[dict[str, Any]], seconds: float) -> int:
    begun = [line["at"] for line in lines]
    return max(sum(at <= other < at + seconds for other in begun) for at in begun)


def test_answers_are_those_of_the_chain_itself(job, cluster, problem) -> None:
    teacher = WordTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=str(MODELS / "student"), guidance_tokens=20, max_tokens=60
    )
    data = cluster.data.from_items([{"q": problem.question}])
    found = rows_of(guide_dataset(data, chain, prompt_column="q"))[problem.question]
    alone = chain.invoke(problem.question)
    assert found["answer"] == alone.text
    assert found["guidance"] == alone.response_metadata["gkt"]["guidance"] != ""
    assert (
        found["student_completion_tokens"]
        == (alone.response_metadata["gkt"]["student_usage"]["output_tokens"])
    )


def test_one_budget_holds_for_all_actors_and_the_student_may_go_on(job, cluster) -> None:
    data = cluster.data.from_items([{"q": f"question {i}"} for i in range(24)])
    out = guide_dataset(
        data,
        job.chain(),
        prompt_column="q",
        output_columns={"answer": "said", "fallback": "why", "teacher_cost": "usd"},
        teacher_price=PRICE,
        budget=Budget(usd=10 * CALL, on_exceeded="student"),
        requests_per_minute=60 * 100,
        calls_in_flight=6,
        teacher_workers=2,
        rows_per_block=4,
    )
    rows = rows_of(out)
    assert set(rows["question 0"]) == {"q", "said", "why", "usd"}
    spent = sum(row["usd"] for row in rows.values())
    assert 0 < spent <= (10 + 6) * CALL  # never passed by more than the calls in flight
    assert spent == len(job.asked) * CALL
    alone = [row for row in rows.values() if row["why"]]
    assert len(alone) == 24 - len(job.asked)
    assert all(row["why"].startswith("BudgetExceeded") and row["said"] for row in alone)
    begun = sorted(line["at"] for line in read_lines(job.folder / "ledger"))
    assert begun[-1] - begun[0] >= (len(begun) - 1) * 0.01 * 0.5  # paced across both actors


def test_without_a_teacher_rows_go_to_the_student_at_once(job, cluster) -> None:
    data = cluster.data.from_items([{"q": "question 1"}])
    rows = rows_of(guide_dataset(data, job.chain(mode="student"), prompt_column="q"))
    assert rows["question 1"]["answer"].strip() == "(question 1)"
    assert rows["question 1"]["teacher_calls"] == 0
    assert job.asked == []


def test_bad_input_is_refused_before_anybody_is_asked(job, cluster, tmp_path) -> None:
    data = cluster.data.from_items([{"q": "question 1", "n": 1, "answer": "old"}])
    chain = job.chain()

    def refused(kind: type[Exception], message: str, *args: Any, **options: Any) -> None:
        given = {"prompt_column": "q", "output_columns": ["cost"], **options}
        with pytest.raises(kind, match=message):
            guide_dataset(*(args or (data, chain)), **given)

    refused(ValueError, "prompt_column='text' is no column.*'q', 'n'", prompt_column="text")
    refused(ValueError, "prompt_column='n' holds int64, not text", prompt_column="n")
    refused(ValueError, "id_column='key' is no column", id_column="key")
    refused(ValueError, "has a column 'answer' already", output_columns=None)
    refused(TypeError, "unknown argument 'anser'; did you mean 'answer'", output_columns=["anser"])
    refused(TypeError, "unknown argument 'student'; did you mean 'students'", student=1)
    refused(TypeError, "dataset must be a ray.data.Dataset", [{"q": "question"}], chain)
    refused(TypeError, "chain_or_config must be a Guided", data, "chain")
    refused(ValueError, "price", teacher_price=None, budget=Budget(usd="1"))
    own = chain.model_copy(update={"budget": Budget(usd="1")})
    refused(ValueError, "guide_dataset\\(..., budget=Budget", data, own)
    unpicklable = job.chain(teacher_prompt=_locked())
    refused(TypeError, "cannot be pickled.*Pass a function that makes it", data, unpicklable)
    assert job.asked == []


def _locked() -> Any:
    lock = threading.Lock()

    def prompt(messages: list[Any]) -> list[Any]:
        with lock:
            return messages

    return prompt


def test_a_function_makes_the_chain_where_it_is_needed(job, cluster) -> None:
    folder = job.folder

    def make() -> GuidedKnowledgeTransferChain:
        return GuidedKnowledgeTransferChain(
            teacher=BilledTeacher(ledger=str(folder / "ledger")),
            student=LoggedStudent(log=str(folder / "log")),
            teacher_prompt=_locked(),
        )

    data = cluster.data.from_items([{"q": "question 1"}, {"q": "question 2"}])
    rows = rows_of(guide_dataset(data, make, prompt_column="q"))
    assert {row["error"] for row in rows.values()} == {None}
    assert sorted(job.asked) == ["question 1", "question 2"]


def test_a_row_that_is_no_text_fails_alone(job, cluster) -> None:
    data = cluster.data.from_items([{"q": "question 1", "i": 0}, {"q": None, "i": 1}])
    rows = {row["i"]: row for row in guide_dataset(data, job.chain(), prompt_column="q").take_all()}
    assert rows[0]["answer"] == "one two three (question 1)"
    assert rows[1]["error"].startswith("TypeError: prompt_column='q' holds a NoneType")


def test_packed_questions_share_a_call_and_its_bill(job, cluster) -> None:
    data = cluster.data.from_items([{"q": f"question {i}"} for i in range(6)])
    rows = rows_of(
        guide_dataset(
            data,
            job.chain(guidance_tokens=3),
            prompt_column="q",
            teacher_price=PRICE,
            questions_per_call=3,
            rows_per_block=6,
            job="packed",
        )
    )
    assert len(job.asked) == 2
    assert {row["answer"].split(" (")[0] for row in rows.values()} == {"one two three"}
    assert sum(row["teacher_cost"] for row in rows.values()) == 2 * CALL
    assert sum(row["teacher_calls"] for row in rows.values()) == 2
