"""What users share of one student: its loading, its thread, its queue and what it reads ahead."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fakes import MODELS, WordTeacher
from support.tiny import wait_until

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
)
from langchain_gkt.chain.drivers import Do, _in_thread
from langchain_gkt.students import loading
from langchain_gkt.students.engine.engine import Request

QUESTION = "What is 3 plus 4?"


@pytest.fixture
def own_student():
    """A student that a test may close."""
    student = HuggingFaceStudent(model=MODELS / "student")
    yield student
    student.close()


@pytest.fixture
def other(tmp_path) -> str:
    """The folder of another model."""
    (tmp_path / "other").symlink_to(MODELS / "student")
    return str(tmp_path / "other")


class Loads:
    """Stands for `from_path`, and looks at who is in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        self.now = self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock, self._load = threading.Lock(), loading.from_path
        monkeypatch.setattr(loading, "from_path", self)

    def __call__(self, path: str, *rest: Any) -> Any:
        with self._lock:
            self.paths.append(path)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(0.1)  # long enough for every other thread to come here, if it may
            assert self.gate.wait(10)
            with self._lock:
                return self._load(path, *rest)
        finally:
            self.now -= 1


@pytest.fixture
def loads(own_student, monkeypatch) -> Loads:
    return Loads(monkeypatch)


# --- loading ---


@pytest.mark.parametrize("copied", [False, True])
def test_an_unpickled_student_is_loaded_once(copied, own_student, loads) -> None:
    again = pickle.loads(pickle.dumps(own_student))
    if copied:
        again = copy.deepcopy(again)
    answers = again.batch([QUESTION] * 4)
    assert len(loads.paths) == 1
    assert {answer.text for answer in answers} == {own_student.invoke(QUESTION).text}
    assert again._engine is not own_student._engine
    again.close()


def test_students_are_not_loaded_at_the_same_time(own_student, loads) -> None:
    students = [pickle.loads(pickle.dumps(own_student)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        texts = list(pool.map(lambda one: one.invoke(QUESTION).text, students))
    assert (len(loads.paths), loads.most) == (3, 1)
    assert set(texts) == {own_student.invoke(QUESTION).text}
    for one in students:
        one.close()


def test_a_student_can_be_copied_and_used_while_another_is_loaded(own_student, loads) -> None:
    again = pickle.loads(pickle.dumps(own_student))
    loads.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(again.invoke, QUESTION)
        wait_until(lambda: loads.now)
        try:
            assert pickle.loads(pickle.dumps(again)).model == copy.deepcopy(again).model
            # In a thread of its own: this one must not wait for a lock that is never let go.
            used = pool.submit(own_student.invoke, QUESTION).result(5)
        finally:
            loads.gate.set()
        assert answer.result().text == used.text
    again.close()


def test_a_student_named_by_calls_is_loaded_once(own_student, other, loads) -> None:
    answers = own_student.batch([QUESTION] * 4, model=other)
    assert loads.paths == [other]
    assert {answer.text for answer in answers} == {own_student.invoke(QUESTION).text}


# --- closing ---


def test_close_reaches_students_that_calls_named(own_student, other) -> None:
    stream = own_student.stream(
        QUESTION, model=other, max_tokens=400, temperature=9.0, stop=["never"]
    )
    next(stream)
    scheduler = own_student._others[other]._engine.scheduler
    own_student.close()
    assert scheduler.queue.closed
    with pytest.raises(StudentError, match="closed before the answer was finished"):
        list(stream)
    with pytest.raises(StudentError, match="the student is closed"):
        own_student.invoke(QUESTION, model=other)


def test_a_closed_student_loads_no_other(own_student, other, loads) -> None:
    own_student.close()
    with pytest.raises(StudentError, match="the student is closed"):
        own_student.invoke(QUESTION, model=other)
    assert loads.paths == []


def test_close_reaches_a_student_that_is_being_loaded(own_student, other, loads) -> None:
    loads.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(own_student.invoke, QUESTION, model=other)
        wait_until(lambda: loads.now)
        own_student.close()
        loads.gate.set()
        with pytest.raises(StudentError, match="the student is closed"):
            answer.result()
    assert own_student._others[other]._engine.closed


# --- reading ahead ---


@pytest.mark.parametrize("ask", ["always", 1.0])
async def test_a_cancelled_call_reads_nothing_ahead(ask, own_student, monkeypatch) -> None:
    asked: list[Any] = []
    chain = GuidedKnowledgeTransferChain(
        teacher=WordTeacher(answer="First we add 3 and 4.", asked=asked),
        student=own_student,
        guidance_tokens=5,
        guidance=GuidancePolicy(ask=ask),
    )
    scheduler = own_student._engine.scheduler
    begun, gate, made = threading.Event(), threading.Event(), []
    prefill = HuggingFaceStudent.prefill

    def slow(self: HuggingFaceStudent, *args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert gate.wait(10)
        made.append(prefill(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(HuggingFaceStudent, "prefill", slow)
    task = asyncio.create_task(chain.ainvoke(QUESTION))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not made
    gate.set()
    wait_until(lambda: made and made[-1]._ticket.claimed)  # not freed by the event loop
    assert scheduler.queue.tickets == []
    assert asked == []


def test_work_is_undone_once_wherever_its_task_is_cancelled() -> None:
    async def cancelled(when: str) -> list[str]:
        undone: list[str] = []
        begun, gate = threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            assert gate.wait(10)
            return "made"

        async def one() -> str:
            return await _in_thread(Do(work, undo=undone.append))

        task = asyncio.create_task(one())
        await asyncio.sleep(0)
        assert begun.wait(10)
        if when == "while it is done":
            task.cancel()
        gate.set()
        if when == "before it is heard of":
            time.sleep(0.1)  # the event loop sees nothing of the result meanwhile
            task.cancel()
        if when == "never":
            assert await task == "made"
        else:
            with pytest.raises(asyncio.CancelledError):
                await task
            wait_until(lambda: undone)
        await asyncio.get_running_loop().shutdown_default_executor()
        return undone

    assert asyncio.run(cancelled("while it is done")) == ["made"]
    assert asyncio.run(cancelled("before it is heard of")) == ["made"]
    assert asyncio.run(cancelled("never")) == []


async def test_work_of_an_abandoned_loop_is_undone() -> None:
    undone: list[str] = []
    gate = threading.Event()

    def work() -> str:
        assert gate.wait(10)
        return "made"

    waiting = _in_thread(Do(work, undo=undone.append))
    waiting.send(None)
    waiting.close()
    gate.set()
    wait_until(lambda: undone == ["made"])


# --- many at once ---


async def test_batches_wait_for_room_in_the_queue() -> None:
    student = HuggingFaceStudent(
        model=MODELS / "student", max_queue=3, max_batch_size=2, max_tokens=3
    )
    want = [student.invoke(QUESTION).text] * 40
    assert [message.text for message in await student.abatch([QUESTION] * 40)] == want
    configs = [{"tags": [str(i)]} for i in range(40)]
    assert [m.text for m in await student.abatch([QUESTION] * 40, configs)] == want
    assert await student.abatch([]) == []
    with pytest.raises(StudentError, match="already wait"):  # the caller's own word counts
        await student.abatch([QUESTION] * 40, {"max_concurrency": 40})
    student.close()


def test_threads_of_a_batch_wait_for_room_in_the_queue(monkeypatch) -> None:
    student = HuggingFaceStudent(
        model=MODELS / "student", max_queue=1, max_batch_size=16, max_tokens=3
    )
    with ThreadPoolExecutor(1) as pool:
        scheduler = student._engine.scheduler
        turn, gate = scheduler._run_step, threading.Event()
        # The scheduler looks at its queue only now and then, as it does in a long step.
        monkeypatch.setattr(scheduler, "_run_step", lambda: gate.wait(0.2) and turn())
        answers = pool.submit(student.batch, [QUESTION] * 8, return_exceptions=True)
        time.sleep(0.3)
        gate.set()
        assert not any(isinstance(answer, Exception) for answer in answers.result())
    student.close()


# --- one thread for all ---


async def test_a_closed_stream_stops_within_a_step(problem) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    scheduler = student._engine.scheduler

    async def ends_soon(made: int) -> None:
        await asyncio.sleep(0.2)
        assert scheduler.steps <= made + 1
        assert scheduler.stats()["rows"] == scheduler.stats()["kv_tokens"] == 0

    stream = student.stream(problem.question)
    next(stream)
    stream.close()
    made = scheduler.steps
    assert made < 20
    await ends_soon(made)
    astream = student.astream(problem.question)
    await anext(astream)
    await astream.aclose()
    await ends_soon(scheduler.steps)


def test_a_cancelled_request_yields_nothing_more(student) -> None:
    cancelled = threading.Event()
    pieces = student._engine.generate(
        Request(prompt=[2, 70, 3], prefill=[], max_tokens=9), cancelled
    )
    cancelled.set()
    assert list(pieces) == []


def test_copies_and_pickles(student, problem) -> None:
    assert copy.deepcopy(student)._engine is student._engine
    again = pickle.loads(pickle.dumps(student))
    assert len(pickle.dumps(student)) < 10_000
    assert again.invoke(problem.question).text == student.invoke(problem.question).text
    assert "Tensor" not in repr(student)


def test_threads_do_not_disturb_each_other(student, problem) -> None:
    questions = [problem.question, "What is 3 plus 4?", "What is 50 minus 7, plus 9?"] * 3
    alone = [student.invoke(question).text for question in questions]
    assert [message.text for message in student.batch(questions)] == alone


async def test_async_is_sync(student, problem) -> None:
    message = await student.ainvoke(problem.question)
    assert message.text == student.invoke(problem.question).text
    chunks = [chunk.text async for chunk in student.astream(problem.question)]
    assert "".join(chunks) == message.text
