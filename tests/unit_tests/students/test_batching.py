"""Batches fill the engine, and wait for room in its queue."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.models.fakes import MODELS

from langchain_gkt import (
    HuggingFaceStudent,
    StudentError,
)

QUESTION = "What is 3 plus 4?"


@pytest.mark.slow
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


@pytest.mark.slow
def test_threads_do_not_disturb_each_other(student, problem) -> None:
    questions = [problem.question, "What is 3 plus 4?", "What is 50 minus 7, plus 9?"]
    alone = [student.invoke(question).text for question in questions]
    assert [message.text for message in student.batch(questions * 3)] == alone * 3
