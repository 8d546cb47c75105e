"""Guidance of a bulk job by the batch endpoint, against a local stand-in."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from support.batches import failed, result, run_batch
from support.models.fakes import WordTeacher
from support.models.saying import Adding

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.bulk import read_batch, write_batch
from langchain_gkt.bulk.controller import JobController, JobSettings
from langchain_gkt.bulk.job import read_report
from langchain_gkt.costs import BillingScenario
from langchain_gkt.costs.budget import Reservation
from langchain_gkt.errors import NotSupportedError

PRICE = Price("1", "4", tiers={"batch": "0.5"})
PROMPTS = [f"{n} + 1?" for n in range(6)]
BATCHED = Decimal(100 * 1 + 10 * 4) / 2 / 1_000_000
"""What a reply of the stand-in costs as a batch."""


def chain(**fields: Any) -> GuidedKnowledgeTransferChain:
    teacher = ChatOpenAI(model="gpt-4o-mini", api_key="none", temperature=0)  # type: ignore[arg-type]
    return GuidedKnowledgeTransferChain(
        **{"teacher": teacher, "student": Adding(), "guidance_tokens": 12, "stop": ["Q:"], **fields}
    )


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    (file,) = write_batch(chain(), [*PROMPTS, PROMPTS[0]], tmp_path / "ask.jsonl")
    return file


def test_requests_are_what_the_chain_would_send(sent: Path) -> None:
    rows = [json.loads(line) for line in sent.read_text().splitlines()]
    assert len({row["custom_id"] for row in rows}) == len(rows) == len(PROMPTS)
    assert rows[0]["body"] == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "0 + 1?"}],
        "max_completion_tokens": 12,
        "temperature": 0,
        "stop": ["Q:"],
    }
    assert all(len(row["custom_id"]) <= 64 for row in rows)


def test_results_become_guidance_at_half_price_and_nothing_is_asked_again(
    sent: Path, tmp_path: Path
) -> None:
    run_batch(sent, tmp_path / "out.jsonl", lambda n, row: [result(row, n)])
    for new in (6, 0):  # the same file read twice is billed once
        found = read_batch(
            chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job", teacher_price=PRICE
        )
        assert (found.new, found.results.notes()) == (new, [])
        assert found.bill.known_cost == 6 * BATCHED
    assert Decimal(read_report(tmp_path / "job")["teacher"]["cost"]) == 6 * BATCHED
    assert "tier batch" in read_report(tmp_path / "job")["teacher"]["price_source"]
    assert write_batch(chain(), PROMPTS, tmp_path / "b.jsonl", checkpoint=tmp_path / "job") == []
    controller = JobController(JobSettings(checkpoint=tmp_path / "job", run="next"))
    key = json.loads(sent.read_text().splitlines()[0])["custom_id"]
    admitted = controller.admit(key, "row", Reservation(tokens=1, usd=None))
    reply = json.loads(str(admitted.reply))
    controller.close()
    assert admitted.carries
    assert reply["text"] == "It is 7."
    assert sum(Decimal(reply["part"][f"{n}_cost"]) for n in ("prompt", "completion")) == BATCHED


def test_missing_repeated_and_failed_rows_are_named_and_none_is_free(
    sent: Path, tmp_path: Path
) -> None:
    def answer(n: int, row: Any) -> list[Any]:
        twice = [result(row, n), {**result(row, n), "id": "batch_req_again"}]
        same = [result(row, n)] * 2
        lines = {0: [], 1: twice, 2: same, 3: [failed(row)], 4: [failed(row, status=500)]}
        return lines.get(n, [failed(row, code="batch_expired")])

    run_batch(sent, tmp_path / "out.jsonl", answer)
    found = read_batch(
        chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job", teacher_price=PRICE
    )
    ids = [json.loads(line)["custom_id"] for line in sent.read_text().splitlines()]
    assert found.results.missing == (ids[0],)
    assert found.results.repeated == (ids[1], ids[2])
    assert set(found.results.failed) == {ids[3], ids[4], ids[5]}
    assert found.bill.known_cost == 3 * BATCHED  # two answers of one request are two bills
    assert (found.bill.unreported_calls, found.bill.to_dict()["cost"]) == (1, None)
    said = str(found)
    for words in (
        f"1 of 6 requests have neither an answer nor an error in the result file: {ids[0]}",
        "3 of 6 requests failed",
        "2 of 6 requests were answered more than once",
        "batch_expired",
    ):
        assert words in said
    (left,) = write_batch(chain(), PROMPTS, tmp_path / "b.jsonl", checkpoint=tmp_path / "job")
    again = [json.loads(line)["custom_id"] for line in left.read_text().splitlines()]
    assert again == [ids[0], *ids[3:]]


def test_replies_whose_ids_are_all_the_same_are_all_read(sent: Path, tmp_path: Path) -> None:
    run_batch(sent, tmp_path / "out.jsonl", lambda n, row: [{**result(row, n), "id": "same"}])
    found = read_batch(
        chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job", teacher_price=PRICE
    )
    assert (found.new, found.results.notes()) == (6, [])
    assert found.bill.known_cost == 6 * BATCHED


def test_a_reply_without_usage_is_estimated_and_not_free(sent: Path, tmp_path: Path) -> None:
    def answer(n: int, row: Any) -> list[Any]:
        made = result(row, n)
        made["response"]["body"]["usage"] = None
        return [made]

    run_batch(sent, tmp_path / "out.jsonl", answer)
    found = read_batch(
        chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job", teacher_price=PRICE
    )
    assert (found.bill.unreported_calls, found.bill.complete) == (6, False)
    assert found.bill.unreported_cost > 0


def test_cached_and_written_tokens_of_a_batch_are_read(sent: Path, tmp_path: Path) -> None:
    details = {"cached_tokens": 60, "cache_write_tokens": 30}
    run_batch(
        sent,
        tmp_path / "out.jsonl",
        lambda n, row: [result(row, n, prompt_tokens_details=details)],
    )
    scenario = BillingScenario(price=PRICE, tier="batch")
    found = read_batch(
        chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job", scenario=scenario
    )
    assert (found.bill.cached_prompt_tokens, found.bill.written_prompt_tokens) == (360, 180)


def test_results_of_another_batch_are_refused(sent: Path, tmp_path: Path) -> None:
    (other,) = write_batch(chain(guidance_tokens=5), PROMPTS[:1], tmp_path / "other.jsonl")
    run_batch(other, tmp_path / "out.jsonl", lambda n, row: [result(row, n)])
    with pytest.raises(ValueError, match=r"out.jsonl, line 1 answers custom_id '\w+', which the"):
        read_batch(chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job")
    (tmp_path / "out.jsonl").write_text('{"custom_id": "a"}\n[]\n')
    with pytest.raises(ValueError, match=r"line 1 is no result of a batch.*line 2 is no result"):
        read_batch(chain(), tmp_path / "out.jsonl", sent, checkpoint=tmp_path / "job")
    with pytest.raises(ValueError, match="line 1 holds no custom_id and body"):
        read_batch(chain(), other, tmp_path / "out.jsonl", checkpoint=tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_files_are_not_written_over_and_large_ones_are_parted(
    sent: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    with pytest.raises(ValueError, match="is there already, and may have been sent"):
        write_batch(chain(), PROMPTS, sent)
    monkeypatch.setattr("langchain_gkt.teachers.batch_files.MAX_REQUESTS", 4)
    files = write_batch(chain(), PROMPTS, tmp_path / "part.jsonl")
    assert [file.name for file in files] == ["part.jsonl", "part-2.jsonl"]
    assert [len(file.read_text().splitlines()) for file in files] == [4, 2]


def test_teachers_of_other_endpoints_are_refused(tmp_path: Path) -> None:
    other = chain(teacher=WordTeacher(answer="It is so.", asked=[]))
    with pytest.raises(NotSupportedError, match="needs a teacher of langchain-openai"):
        write_batch(other, PROMPTS, tmp_path / "a.jsonl")
    teacher = ChatOpenAI(model="gpt-5-mini", api_key="none", use_responses_api=True)  # type: ignore[arg-type]
    with pytest.raises(NotSupportedError, match="use_responses_api=False"):
        write_batch(chain(teacher=teacher), PROMPTS, tmp_path / "b.jsonl")
    wrapped = teacher.model_copy(update={"use_responses_api": False}).with_retry()
    (file,) = write_batch(chain(teacher=wrapped), PROMPTS, tmp_path / "c.jsonl")
    assert json.loads(file.read_text().splitlines()[0])["body"]["max_completion_tokens"] == 12
