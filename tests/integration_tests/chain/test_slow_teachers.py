"""A teacher behind a real server that never comes to an end, asked with a real client."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from support.entry_points import answer
from support.models.fakes import MODELS
from support.models.tiny import wait_until
from support.servers.slow_server import SLOW, SlowServer

from langchain_gkt import (
    CircuitBreaker,
    CostTracker,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    TeacherError,
)

QUESTION = "What is 3 plus 4?"
ENTRY_POINTS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


@pytest.fixture(scope="module")
def student():
    student = HuggingFaceStudent(model=MODELS / "student", max_tokens=6)
    yield student
    student.close()


def chain_of(server: SlowServer, student: Any, **fields: Any) -> GuidedKnowledgeTransferChain:
    teacher = ChatOpenAI(
        base_url=server.base_url, api_key="local", model="slow-1", stream_usage=True
    )
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gkt-call"]


@pytest.mark.slow
@pytest.mark.parametrize("how", SLOW)
async def test_every_way_in_ends_in_time_and_nothing_stays_behind(how, student) -> None:
    with SlowServer(how) as server:
        for entry_point in ENTRY_POINTS:
            tracker = CostTracker(teacher_price="openai:gpt-4o-mini")
            chain = chain_of(server, student, timeout=0.4)
            with pytest.raises(TeacherError, match="and the teacher had not finished"):
                await answer(chain, entry_point, QUESTION, {"callbacks": [tracker]})
            report = tracker.report()
            assert (report.running, report.teacher.unreported_calls) == (0, 1)
            assert report.teacher.unreported_cost > 0
            assert report.to_dict()["teacher"]["cost"] is None
        assert server.asked == len(ENTRY_POINTS)
    wait_until(lambda: not threads())


@pytest.mark.slow
@pytest.mark.parametrize("entry_point", ["stream", "astream"])
async def test_the_student_goes_on_from_what_was_shown(entry_point, student) -> None:
    with SlowServer("half") as server:
        chain = chain_of(server, student, timeout=2, on_teacher_error="student")
        message = await answer(chain, entry_point, QUESTION)
    gkt = message.response_metadata["gkt"]
    assert message.text.startswith("First we ") and gkt["finished_by"] == "student"
    assert "timeout=2 s is over" in gkt["fallback"]


@pytest.mark.slow
async def test_an_outage_costs_a_few_timeouts_and_not_one_per_user(student) -> None:
    with SlowServer("silence") as server:
        chain = chain_of(
            server,
            student,
            timeout=3,
            on_teacher_error="student",
            circuit_breaker=CircuitBreaker(failures=2, cooldown_seconds=600),
        )
        for _ in range(10):
            assert (await chain.ainvoke(QUESTION)).text
        assert server.asked == 2
