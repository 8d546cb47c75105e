from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from langchain_core.caches import InMemoryCache
from support.models.fakes import WordTeacher
from support.runs import left_open

from langchain_gkt import CostTracker, GuidedKnowledgeTransferChain, Price, track_costs

PRICE = Price("2", "10", source="list", as_of="2026-01-01")


@pytest.fixture
def chain(teacher, student, problem) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=len(problem.plan) + 3
    )


def counted(tracker: CostTracker, role: str = "teacher") -> tuple[int, int, int]:
    data = tracker.report().to_dict()[role]
    return data["calls"], data["prompt_tokens"], data["completion_tokens"]


@pytest.mark.slow
async def test_counts_through_every_door(chain, problem) -> None:
    tracker, question = CostTracker(), problem.question
    config = {"callbacks": [tracker]}
    chain.invoke(question, config)
    list(chain.stream(question, config))
    chain.batch([question, question], config)
    await chain.ainvoke(question, config)
    [_ async for _ in chain.astream(question, config)]
    assert counted(tracker) == (6, 6 * 7, 6 * chain.guidance_tokens)
    message = chain.invoke(question)
    usage = message.response_metadata["gkt"]["student_usage"]
    assert counted(tracker, "student") == (6, 6 * usage["input_tokens"], 6 * usage["output_tokens"])
    assert not left_open(tracker)


async def test_threads_and_tasks_lose_nothing(chain, problem) -> None:
    tracker = CostTracker(keep_calls=True)
    config = {"callbacks": [tracker]}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: chain.invoke(problem.question, config, max_tokens=30), range(20)))
    await asyncio.gather(
        *(chain.ainvoke(problem.question, config, max_tokens=30) for _ in range(5))
    )
    assert counted(tracker)[0] == 25
    assert len([call for call in tracker.calls if call.role == "teacher"]) == 25
    assert not left_open(tracker)


def test_prices_are_exact(chain, problem) -> None:
    with track_costs(teacher_price=PRICE, student_price=Price(1, 0)) as costs:
        chain.invoke(problem.question)
    data = costs.report().to_dict()
    assert data["teacher"]["prompt_cost"] == str(Decimal(7 * 2) / 1_000_000)
    completion = Decimal(10 * chain.guidance_tokens) / 1_000_000
    assert Decimal(data["teacher"]["completion_cost"]) == completion
    assert data["teacher"]["price_source"] == "list of 2026-01-01"
    assert Decimal(data["student"]["cost"]) == Decimal(data["student"]["prompt_tokens"]) / 1_000_000
    total = Decimal(data["teacher"]["cost"]) + Decimal(data["student"]["cost"])
    assert Decimal(data["total"]["cost"]) == total


def test_the_estimate_is_marked_and_right_where_tokens_are_characters(
    chain, whole_student, problem
) -> None:
    chain = chain.model_copy(update={"student": whole_student})
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(problem.question)
    estimate = costs.report().to_dict()["teacher_only_estimate"]
    assert estimate["estimated"] is True
    assert estimate["prompt_tokens"] == 7
    assert estimate["completion_tokens"] == len(problem.solution)
    with track_costs(teacher_price=PRICE) as alone:
        chain.invoke(problem.question, mode="teacher")
    assert alone.report().to_dict()["teacher"]["cost"] == estimate["cost"]
    assert alone.report().to_dict()["teacher_only_estimate"]["calls"] == 0
    assert alone.report().to_dict()["teacher_only_estimate"]["cost"] is None
    paid = Decimal(costs.report().to_dict()["teacher"]["cost"])
    assert estimate["ratio"] == pytest.approx(float(paid / Decimal(estimate["cost"])))


def test_a_finished_teacher_is_no_estimate_apart(chain, problem) -> None:
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(problem.question, guidance_tokens=500)
    data = costs.report().to_dict()
    assert data["teacher_only_estimate"]["cost"] == data["teacher"]["cost"]
    assert data["teacher_only_estimate"]["ratio"] == 1.0


def test_an_unknown_model_is_unpriced_never_zero(chain, problem) -> None:
    with track_costs() as costs:
        chain.invoke(problem.question)
    data = costs.report().to_dict()
    assert data["teacher"]["cost"] is data["total"]["cost"] is None
    assert data["teacher_only_estimate"]["cost"] is data["teacher_only_estimate"]["ratio"] is None
    assert "unpriced" in data["teacher"]["price_source"]
    assert data["student"]["cost"] == "0"
    assert "free" in data["student"]["price_source"]


def test_missing_usage_is_never_a_silent_zero(student, problem) -> None:
    teacher = WordTeacher(answer=problem.solution, asked=[], reports_usage=False)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=20)
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(problem.question)
    data = costs.report().to_dict()
    assert data["teacher"]["unreported_calls"] == 1
    assert data["teacher"]["cost"] is data["total"]["cost"] is None
    assert data["teacher_only_estimate"]["not_estimated_calls"] == 1
    assert "1 call(s) reported no usage" in str(costs.report())


def test_genai_prices_are_named(chain, problem) -> None:
    with track_costs(teacher_price="openai:gpt-4o-mini") as costs:
        chain.invoke(problem.question)
    data = costs.report().to_dict()["teacher"]
    assert data["price_source"].startswith("openai:gpt-4o-mini, genai-prices ")
    assert Decimal(data["prompt_cost"]) > 0


def test_failures_and_retries_are_counted_in_their_call(student, problem) -> None:
    class Shaky(WordTeacher):
        def _generate(self, *args, **kwargs):
            result = super()._generate(*args, **kwargs)
            if len(self.asked) % 2:
                raise ConnectionError("down")
            return result

    teacher = Shaky(answer=problem.solution, asked=[])
    retried = teacher.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    chain = GuidedKnowledgeTransferChain(teacher=retried, student=student, guidance_tokens=20)
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(problem.question)
        with pytest.raises(RuntimeError, match="down"):
            chain.model_copy(update={"teacher": teacher}).invoke(problem.question)
    data = costs.report().to_dict()
    assert (data["teacher"]["calls"], data["teacher"]["failed_calls"]) == (3, 2)
    assert data["teacher_only_estimate"]["calls"] == 1
    assert not left_open(costs)


def test_a_stream_closed_early_was_paid_for(chain, problem) -> None:
    with track_costs(teacher_price=PRICE) as costs:
        stream = chain.stream(problem.question)
        next(stream), next(stream)
        stream.close()
    data = costs.report().to_dict()
    assert data["teacher"]["completion_tokens"] == chain.guidance_tokens
    assert (data["student"]["failed_calls"], data["student"]["unreported_calls"]) == (0, 1)
    assert data["teacher_only_estimate"]["not_estimated_calls"] == 1
    assert not left_open(costs)


def test_a_chain_that_teaches_another_counts_once(chain, student, problem) -> None:
    outer = GuidedKnowledgeTransferChain(teacher=chain, student=student, guidance_tokens=200)
    with track_costs() as costs:
        outer.invoke(problem.question)
    assert counted(costs) == (1, 7, chain.guidance_tokens)
    assert not left_open(costs)


@pytest.mark.slow
def test_answers_from_a_cache_are_free(teacher, student, problem) -> None:
    cached = teacher.model_copy(update={"cache": InMemoryCache()})
    chain = GuidedKnowledgeTransferChain(teacher=cached, student=student, guidance_tokens=20)
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(problem.question)
        once = costs.report().to_dict()["teacher"]
        chain.invoke(problem.question)
    data = costs.report().to_dict()["teacher"]
    assert (data["calls"], data["cache_hits"]) == (2, 1)
    assert data["cost"] == once["cost"]
    own = GuidedKnowledgeTransferChain(teacher=teacher, student=student, cache=InMemoryCache())
    with track_costs() as costs:
        own.invoke(problem.question)
        own.invoke(problem.question)
    assert counted(costs)[0] == 1


def test_cached_and_reasoning_tokens_stand_apart(student, problem) -> None:
    class Detailed(WordTeacher):
        def _generate(self, *args, **kwargs):
            result = super()._generate(*args, **kwargs)
            result.generations[0].message.usage_metadata = {
                "input_tokens": 1000,
                "output_tokens": 30,
                "total_tokens": 1030,
                "input_token_details": {"cache_read": 600},
                "output_token_details": {"reasoning": 10},
            }
            return result

    teacher = Detailed(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=30)
    with track_costs(teacher_price=Price(2, 10, "0.5")) as costs:
        chain.invoke(problem.question)
    data = costs.report().to_dict()["teacher"]
    assert (data["cached_prompt_tokens"], data["reasoning_tokens"]) == (600, 10)
    assert Decimal(data["prompt_cost"]) == Decimal("0.0011")


def test_the_table_says_what_is_what(chain, problem) -> None:
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(problem.question)
    lines = str(costs.report()).splitlines()
    assert lines[0].split()[0] == "calls"
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "teacher",
        "student",
        "total",
        "teacher only (estimated)",
    ]
    assert "teacher price: list of 2026-01-01" in lines
    assert "student price: free: runs locally" in lines
    assert any("is prompt, which guidance cannot save" in line for line in lines)
    assert json.loads(costs.report().to_json()) == costs.report().to_dict()


def test_a_report_can_be_made_while_calls_run(student, problem) -> None:
    seen = []

    class Peeking(WordTeacher):
        def _generate(self, *args, **kwargs):
            seen.append(tracker.report().to_dict()["running"])
            return super()._generate(*args, **kwargs)

    tracker = CostTracker()
    teacher = Peeking(answer="A b c.", asked=[])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student)
    chain.invoke(problem.question, {"callbacks": [tracker]})
    assert (seen, tracker.report().running) == ([1], 0)
