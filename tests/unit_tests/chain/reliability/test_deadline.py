"""A call ends in time, whatever its teacher, its student or its queue does."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from support.entry_points import answer
from support.models.fakes import MODELS, Recorder, WordTeacher
from support.models.tiny import wait_until

from langchain_gkt import (
    CostTracker,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
    TeacherError,
)
from langchain_gkt.chain.reliability import deadline
from langchain_gkt.time_limit import OutOfTime

QUESTION = "What is 3 plus 4?"
SHORT = 0.75
ENTRY_POINTS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


class Blocking(WordTeacher):
    """A teacher that waits until it is let go."""

    go: Any = None

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        assert self.go.wait(60)
        return super()._generate(messages, stop, run_manager, **kwargs)


class AsyncBlocking(Blocking):
    """The same, which can be awaited."""

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        await asyncio.sleep(20)


@pytest.fixture(scope="module", autouse=True)
def warm(student) -> None:
    """Have the first call, which imports and reads much, behind us before time counts."""
    chain_of(WordTeacher(answer="First we add 3 and 4.", asked=[]), student, timeout=60).invoke("x")


@pytest.fixture
def go():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def student():
    student = HuggingFaceStudent(model=MODELS / "student", max_tokens=8)
    yield student
    student.close()


def chain_of(teacher: Any, student: Any, **fields: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=5, **{"timeout": SHORT, **fields}
    )


@pytest.mark.parametrize("teacher", [Blocking, AsyncBlocking])
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
async def test_a_teacher_that_blocks_is_left(entry_point, teacher, go, student) -> None:
    tracker, recorder = CostTracker(teacher_price="openai:gpt-4o-mini"), Recorder()
    chain = chain_of(teacher(answer="First we add.", go=go, asked=[]), student)
    config = {"callbacks": [tracker, recorder]}
    with pytest.raises(TeacherError, match=r"timeout=0.75 s is over, and the teacher had") as found:
        await answer(chain, entry_point, QUESTION, config)
    assert found.value.retryable and isinstance(found.value.__cause__, OutOfTime)
    report = tracker.report()
    assert report.running == 0 and report.teacher.failed_calls == 1
    assert report.teacher.unreported_calls == 1 and report.student.calls == 0
    go.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "gkt-call"])
    ends = {role: [run["end"] for run in recorder.by_role(role)] for role in ("teacher", None)}
    assert ends == {"teacher": ["OutOfTime"], None: ["TeacherError"]}
    assert len(recorder.ended) == 2  # what the model told later was heard by nobody
    assert tracker.report().teacher.calls == 1


@pytest.mark.parametrize("entry_point", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_share_of_the_time_is_the_students(entry_point, go, student) -> None:
    chain = chain_of(
        Blocking(answer="x", go=go, asked=[]), student, on_teacher_error="student", timeout=3.0
    )
    message = await answer(chain, entry_point, QUESTION)
    gkt = message.response_metadata["gkt"]
    assert message.text and gkt["finished_by"] == "student"
    assert "the teacher's share of the call's timeout=3 s is over" in gkt["fallback"]


@pytest.mark.parametrize("entry_point", ["invoke", "ainvoke", "stream", "astream"])
async def test_the_students_queue_counts(entry_point, student, monkeypatch) -> None:
    monkeypatch.setattr(student._engine.scheduler, "_admit", lambda: time.sleep(0.01))
    chain = chain_of(WordTeacher(answer="First we add 3 and 4.", asked=[]), student)
    with pytest.raises(StudentError, match=r"and the student's queue had not finished") as found:
        await answer(chain, entry_point, QUESTION)
    assert "taken so far: the student" in str(found.value)
    wait_until(lambda: not student._engine.scheduler.queue.waiting)


def test_a_student_that_writes_too_long_is_stopped(student, monkeypatch) -> None:
    step = student._engine.scheduler._run_step

    def slow() -> None:
        time.sleep(0.05)
        step()

    monkeypatch.setattr(student._engine.scheduler, "_run_step", slow)
    chain = chain_of(WordTeacher(answer="First we add 3 and 4.", asked=[]), student)
    with pytest.raises(StudentError, match=r"and the student had not finished"):
        chain.invoke(QUESTION, max_tokens=400)
    wait_until(lambda: not student._engine.scheduler._running)


def test_time_that_the_reader_takes_does_not_count(student, monkeypatch) -> None:
    chain = chain_of(WordTeacher(answer="First we add 3 and 4.", asked=[]), student, timeout=60)
    chunks: list[Any] = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 50 * len(chunks))
    monkeypatch.setattr(deadline, "time", clock)
    for chunk in chain.stream(QUESTION):
        chunks.append(chunk)  # takes 50 seconds
    assert len(chunks) > 5 and chunks[-1].response_metadata["finish_reason"]


@pytest.mark.parametrize("entry_point", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_model_that_fails_in_time_troubles_no_handler(entry_point, student, caplog) -> None:
    down = WordTeacher(answer="x", asked=[], fails_with=ConnectionError("down"))
    retried = down.with_retry(stop_after_attempt=1)
    for teacher in (down, retried):
        with pytest.raises(TeacherError, match="down"):
            await answer(chain_of(teacher, student, timeout=60), entry_point, QUESTION)
    assert [record for record in caplog.records if "callback" in record.getMessage()] == []


async def test_a_cancelled_call_is_cancelled(go, student) -> None:
    chain = chain_of(AsyncBlocking(answer="x", go=go, asked=[]), student, timeout=10)
    task = asyncio.create_task(chain.ainvoke(QUESTION))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_guide_ends_in_time(go, student) -> None:
    chain = chain_of(Blocking(answer="x", go=go, asked=[]), student)
    for ask in (lambda: chain.guide(QUESTION), lambda: asyncio.run(chain.aguide(QUESTION))):
        with pytest.raises(TeacherError, match=r"timeout=0.75 s is over"):
            await asyncio.to_thread(ask)


def test_a_retry_is_not_begun_after_the_end(go, student) -> None:
    asked: list[Any] = []

    class Failing(Blocking):
        def _generate(self, *args, **kwargs):
            asked.append(1)
            assert self.go.wait(60)
            raise ConnectionError

    teacher = Failing(answer="x", go=go, asked=[]).with_retry(wait_exponential_jitter=False)
    with pytest.raises(TeacherError, match="is over"):
        chain_of(teacher, student).invoke(QUESTION)
    go.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "gkt-call"])
    assert asked == [1]


@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan"), float("inf")])
def test_a_timeout_that_makes_no_sense_is_refused(value, student) -> None:
    asked: list[Any] = []
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0"):
        chain_of(WordTeacher(answer="x"), student, timeout=value)
    chain = chain_of(WordTeacher(answer="x", asked=asked), student)
    with pytest.raises(ValueError, match="timeout must be"):
        chain.invoke(QUESTION, timeout=value)
    assert asked == []
