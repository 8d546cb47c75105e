"""A teacher that keeps failing is left alone for a while."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from support.entry_points import answer
from support.models.fakes import MODELS, WordTeacher

from langchain_gkt import (
    CircuitBreaker,
    CostTracker,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
    TeacherError,
)
from langchain_gkt.chain.reliability.breaker import is_outage

QUESTION = "What is 3 plus 4?"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def student():
    student = HuggingFaceStudent(model=MODELS / "student", max_tokens=4)
    yield student
    student.close()


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError), breaker.attempt():
            raise ConnectionError("no route")


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.attempt():
        pass


def test_it_opens_rests_and_closes() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, cooldown_seconds=10, clock=clock)
    fail(breaker, 2)
    succeed(breaker)
    fail(breaker, 2)
    assert breaker.state == "closed"  # not three in a row
    fail(breaker)
    with pytest.raises(TeacherError, match=r"3 calls in a row have failed.*no route") as found:
        succeed(breaker)
    assert found.value.retryable and found.value.retry_after == 10
    clock.now = 10
    assert breaker.state == "half_open"
    with breaker.attempt(), pytest.raises(TeacherError):
        succeed(breaker)  # one trial at a time
    assert breaker.state == "closed"
    fail(breaker, 3)
    clock.now = 20
    fail(breaker)  # the trial
    assert breaker.state == "open"
    assert breaker.to_dict() == {
        "state": "open",
        "failures_in_a_row": 4,
        "opened": 3,
        "refused_calls": 2,
        "seconds_left": 10,
        "last_failure": "ConnectionError: no route",
    }


def test_a_trial_that_is_cancelled_says_nothing() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, cooldown_seconds=10, clock=clock)
    fail(breaker)
    clock.now = 11
    with pytest.raises(GeneratorExit), breaker.attempt():
        raise GeneratorExit
    assert breaker.state == "half_open"
    succeed(breaker)
    assert breaker.state == "closed"


def test_calls_begun_before_it_opened_do_not_close_it() -> None:
    breaker = CircuitBreaker(failures=1, cooldown_seconds=10, clock=Clock())
    with breaker.attempt():
        fail(breaker)
    assert breaker.state == "open"


def test_copies_share_it_and_pickles_do_not() -> None:
    breaker = CircuitBreaker(failures=1)
    fail(breaker)
    assert copy.deepcopy(breaker) is breaker
    assert pickle.loads(pickle.dumps(breaker)).state == "closed"


class Answered(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


def test_the_callers_own_faults_are_no_outage() -> None:
    assert [status for status in (400, 401, 404, 422, 429, 500, 503) if is_outage(Answered(status))]
    assert not any(is_outage(Answered(status)) for status in (400, 404, 413, 422))
    assert all(is_outage(Answered(status)) for status in (401, 403, 408, 429, 500, 503))


@pytest.mark.parametrize("entry_point", ["invoke", "astream"])
async def test_an_outage_is_asked_about_so_often_and_reported(entry_point, student) -> None:
    asked: list[Any] = []
    clock, tracker = Clock(), CostTracker()
    teacher = WordTeacher(answer="First.", asked=asked, fails_with=ConnectionError("no route"))
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher,
        student=student,
        on_teacher_error="student",
        circuit_breaker=CircuitBreaker(failures=2, cooldown_seconds=30, clock=clock),
    )
    config = {"callbacks": [tracker]}
    for _ in range(5):
        message = await answer(chain, entry_point, QUESTION, config)
        assert message.text and message.response_metadata["gkt"]["finished_by"] == "student"
    assert "the teacher is left alone: 2 calls" in message.response_metadata["gkt"]["fallback"]
    assert len(asked) == 2 and message.response_metadata["gkt"]["teacher_calls"] == 0
    report = tracker.report()
    (state,) = report.to_dict()["circuit_breakers"].values()
    assert (state["state"], state["opened"], state["refused_calls"]) == ("open", 1, 3)
    assert "3 call(s) were not made; it is now asked again in 30 s" in str(report.notes())
    clock.now = 31
    await answer(chain.model_copy(), entry_point, QUESTION, config)
    assert len(asked) == 3


def test_a_closed_student_is_noticed_before_the_teacher_is_paid() -> None:
    asked: list[Any] = []
    own = HuggingFaceStudent(model=MODELS / "student")
    chain = GuidedKnowledgeTransferChain(
        teacher=WordTeacher(answer="First.", asked=asked), student=own
    )
    own.close()
    with pytest.raises(StudentError, match="the student is closed"):
        chain.invoke(QUESTION)
    assert asked == []
