"""Work in threads is undone if its task is cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from support.models.fakes import MODELS, WordTeacher
from support.models.tiny import wait_until

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
)
from langchain_gkt.chain.drivers import BlockingWork, _in_thread

QUESTION = "What is 3 plus 4?"


@pytest.fixture
def own_student():
    """A student that this file may close."""
    student = HuggingFaceStudent(model=MODELS / "student")
    yield student
    student.close()


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
        assert gate.wait(60)
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
    wait_until(lambda: made and made[-1].claimed.is_set())  # not freed by the event loop
    assert scheduler.queue.ahead == []
    assert asked == []


def test_work_is_undone_once_wherever_its_task_is_cancelled() -> None:
    async def cancelled(when: str) -> list[str]:
        undone: list[str] = []
        begun, gate = threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            assert gate.wait(60)
            return "made"

        async def one() -> str:
            return await _in_thread(BlockingWork(work, undo=undone.append))

        task = asyncio.create_task(one())
        await asyncio.sleep(0)
        assert begun.wait(60)
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
        assert gate.wait(60)
        return "made"

    waiting = _in_thread(BlockingWork(work, undo=undone.append))
    waiting.send(None)
    waiting.close()
    gate.set()
    wait_until(lambda: undone == ["made"])
