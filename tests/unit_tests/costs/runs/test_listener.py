from __future__ import annotations

import asyncio
import time
import tracemalloc
import uuid
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from support.models.fakes import WordTeacher
from support.runs import PROMPT, guided_call, left_open, result, start

from langchain_gkt import CostTracker, GuidedKnowledgeTransferChain, Price, track_costs

PRICE = Price("2", "10")
CALL = {"name": "add", "args": "", "id": "c1", "index": 0}


@pytest.mark.slow
def test_memory_stays_flat_and_every_call_is_counted(monkeypatch) -> None:
    monkeypatch.setattr("langchain_gkt.costs.aggregator._MAX_LAST_COSTS", 100)
    tracker = CostTracker(teacher_price=PRICE)
    tracemalloc.start()  # before the calls that fill what is bounded, so that its renewal is even
    for _ in range(200):
        guided_call(tracker)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(400):
        guided_call(tracker)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 9_600  # 24 bytes a call, which is less than any object
    report = tracker.report()
    assert (report.teacher.calls, report.teacher.prompt_tokens) == (600, 600 * 9)
    assert report.estimate.calls == 600
    assert not tracker.calls


def test_calls_that_never_end_are_bounded_and_not_lost(monkeypatch) -> None:
    monkeypatch.setattr("langchain_gkt.costs.runs.listener._MAX_OPEN", 50)
    tracker = CostTracker(teacher_price=PRICE)
    for i in range(120):
        metadata = {"gkt_role": "teacher", "gkt_call_id": str(i), "ls_model_name": "m"}
        tracker.on_chat_model_start(
            {}, PROMPT, run_id=uuid.uuid4(), parent_run_id=uuid.uuid4(), metadata=metadata
        )
    report = tracker.report()
    assert report.running <= 50
    assert report.running + report.teacher.unreported_calls == 120
    for _ in range(120):
        guided_call(tracker, end=False)
    assert len(tracker._calls) <= 50
    assert len(tracker._roots) <= 50


@pytest.mark.slow
async def test_hundreds_of_calls_at_once(problem) -> None:
    class Slow(WordTeacher):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.05)
            return self._generate(*args[:1])

    teacher = Slow(answer=problem.solution, asked=[])
    student = Slow(answer="and so on.", asked=[])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=20)
    with track_costs(teacher_price=PRICE) as costs:
        await asyncio.gather(*(chain.ainvoke(problem.question) for _ in range(300)))
    report = costs.report()
    assert (report.teacher.calls, report.teacher.completion_tokens) == (300, 6_000)
    assert (report.student.calls, report.estimate.calls, report.running) == (300, 300, 0)
    assert not left_open(costs)
    # Side by side they share the machine's time: no more than the wall shows.
    assert report.student.busy_seconds < report.student.seconds / 10


def test_models_first_tokens_and_two_chains_at_once(student, problem) -> None:
    def named(name: str) -> WordTeacher:
        class Named(WordTeacher):
            def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
                return {**super()._get_ls_params(stop=stop, **kwargs), "ls_model_name": name}

        return Named(answer=problem.solution, asked=[])

    prices = {"a": Price(1, 0), "b": Price(100, 0)}
    with track_costs(teacher_price=prices) as costs:
        for name in ("a", "b", "b", "c"):
            chain = GuidedKnowledgeTransferChain(
                teacher=named(name), student=student, guidance_tokens=9, max_tokens=12
            )
            list(chain.stream(problem.question))
    data = costs.report().to_dict()
    models = data["teacher"]["models"]
    assert [models[name]["calls"] for name in "abc"] == [1, 2, 1]
    assert [models[name]["cost"] for name in "abc"] == ["0.000007", "0.0014", None]
    assert data["teacher"]["known_cost"] == "0.001407"
    assert data["teacher"]["cost"] is data["total"]["cost"] is None
    assert data["teacher"]["first_token_seconds"] is None  # it did not stream
    student_s = data["student"]
    assert 0 < student_s["first_token_seconds"] <= student_s["seconds"]
    assert "0.001407 + ?" in str(costs.report())


def test_the_first_token_is_the_first_chunk_that_says_something(monkeypatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    tracker, said = CostTracker(keep_calls=True), AIMessageChunk("")
    for first in (AIMessageChunk("Ten"), AIMessageChunk("", tool_call_chunks=[CALL])):
        run_id = start(tracker, "teacher")  # a second passes with each look at the clock
        for chunk in (said, said, first, AIMessageChunk(".")):
            tracker.on_llm_new_token(
                chunk.text, run_id=run_id, chunk=ChatGenerationChunk(message=chunk)
            )
        tracker.on_llm_end(result((9, 4)), run_id=run_id)
    assert [call.first_token_seconds for call in tracker.calls] == [3.0, 3.0]
    silent = start(tracker, "teacher")
    tracker.on_llm_new_token("", run_id=silent)
    tracker.on_llm_end(result((9, 0)), run_id=silent)
    assert tracker.calls[-1].first_token_seconds is None


async def test_a_stream_that_moves_to_another_task_is_one_call(problem, teacher, student) -> None:
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=9)
    with track_costs(teacher_price=PRICE) as costs:
        stream = chain.astream(problem.question)
        while await asyncio.create_task(anext(stream, None)):
            pass
    report = costs.report()
    assert (report.student.calls, report.student.unreported_calls) == (1, 0)
    assert (report.teacher.calls, report.estimate.calls) == (1, 1)
    assert not left_open(costs)


def test_usage_that_comes_in_the_last_chunk_or_not_at_all(problem) -> None:
    usage = {"input_tokens": 8, "output_tokens": 3, "total_tokens": 11}
    told = AIMessage("Six and two.", usage_metadata=usage)
    model = GenericFakeChatModel(messages=iter([told, AIMessage("Six and two.")]))
    config: Any = {"metadata": {"gkt_role": "teacher", "gkt_call_id": "x", "gkt_mode": "teacher"}}
    with track_costs(teacher_price=PRICE) as costs:
        model.invoke("hi", config)
        model.invoke("hi", config)
    data = costs.report().to_dict()["teacher"]
    assert (data["prompt_tokens"], data["completion_tokens"]) == (8, 3)
    # The second is judged by the first, whose texts were the same.
    assert data["unreported"]["prompt_tokens"] == 8
    assert data["unreported"]["completion_tokens"] == 3
    assert data["unreported"]["cost"] == "0.000046"
    assert data["cost"] is None


def test_older_integrations_and_zeros() -> None:
    tracker = CostTracker(teacher_price=PRICE)
    metadata = {"gkt_role": "teacher", "gkt_call_id": "1", "gkt_mode": "teacher"}
    ends = [
        result(None).model_copy(
            update={"llm_output": {"token_usage": {"prompt_tokens": 5, "completion_tokens": 2}}}
        ),
        result((0, 0)),  # no prompt is empty: nothing was reported
    ]
    for end in ends:
        run_id = uuid.uuid4()
        tracker.on_chat_model_start({}, PROMPT, run_id=run_id, metadata=metadata)
        tracker.on_llm_end(end, run_id=run_id)
    teacher = tracker.report().teacher
    assert (teacher.prompt_tokens, teacher.completion_tokens) == (5, 2)
    assert teacher.unreported_calls == 1


def test_guide_and_its_retries_leave_nothing_behind(student, problem) -> None:
    class Shaky(WordTeacher):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            made = super()._generate(*args, **kwargs)
            if len(self.asked) % 2:
                raise ConnectionRefusedError("down")
            return made

    teacher = Shaky(answer=problem.solution, asked=[])
    retried = teacher.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    chain = GuidedKnowledgeTransferChain(teacher=retried, student=student, guidance_tokens=9)
    with track_costs(teacher_price=PRICE) as costs:
        chain.guide(problem.question)
    report = costs.report()
    assert (report.teacher.calls, report.teacher.failed_calls, report.teacher.retries) == (2, 1, 1)
    assert report.estimate.not_estimated_calls == 0
    assert not left_open(costs)


@pytest.mark.slow
def test_importing_costs_is_light(light) -> None:
    code = (
        "import sys, langchain_gkt.costs; "
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'scipy', 'rich', 'tiktoken'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert light.run(code)[:2] == (0, "[]\n")
