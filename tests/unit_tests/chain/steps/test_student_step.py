"""The student reads while the teacher writes, and what it read is freed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import MODELS, WordTeacher, limit_inside, make

from langchain_gkt import HuggingFaceStudent, TeacherError


class SlowTeacher(WordTeacher):
    """Waits for the student's reading to begin before it answers."""

    student: Any = None
    seen: list[int] = []

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        scheduler = self.student._engine.scheduler
        for _ in range(500):
            if scheduler.stats()["prefix_bytes"]:
                break
            time.sleep(0.01)
        self.seen.append(scheduler.stats()["prefix_bytes"])
        return super()._generate(*args, **kwargs)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_the_student_reads_while_the_teacher_writes(how, problem) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    solution, limit = problem.solution, limit_inside(problem.plan, problem.solution)
    teacher = SlowTeacher(answer=solution, asked=[], student=student, seen=[])
    fed: list[int] = []
    forward = student._engine.scheduler.model_runner
    prefill = forward.prefill
    forward.prefill = lambda held, ids: fed.append(len(ids)) or prefill(held, ids)
    chain = make(teacher, student, guidance_tokens=limit)
    assert (await answer(chain, how, problem.question)).text == solution
    assert teacher.seen[0] > 0
    assert len(fed) == 2 and fed[1] < fed[0]  # the prompt first, then the guidance alone
    student.close()


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_what_the_student_read_for_nothing_is_freed(how, problem) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    scheduler = student._engine.scheduler
    fails = SlowTeacher(answer="", asked=[], student=student, seen=[], fails_with=OSError("gone"))
    with pytest.raises(TeacherError):
        await answer(make(fails, student, guidance_tokens=5), how, problem.question)
    finishes = SlowTeacher(answer="12.", asked=[], student=student, seen=[])
    chain = make(finishes, student, guidance_tokens=50)
    assert (await answer(chain, how, problem.question)).text == "12."
    assert fails.seen[0] > 0 and finishes.seen[0] > 0
    for _ in range(500):
        if not scheduler.stats()["prefix_bytes"]:
            break
        time.sleep(0.01)
    assert scheduler.stats()["prefix_bytes"] == 0
    student.close()


class Echo(BaseChatModel):
    """A student that is no local model: it has an answer ready, and notes what it was given."""

    reply: str
    given: list[Any] = []

    def _generate(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.given.append(messages[-1].text)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.reply))])

    def _stream(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        self.given.append(messages[-1].text)
        for character in self.reply:
            yield ChatGenerationChunk(message=AIMessageChunk(content=character))

    @property
    def _llm_type(self) -> str:
        return "echo"


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("written", "reply", "whole"),
    [
        ("It is 21 deg", "degrees.", "It is 21 degrees."),
        ("It is 21 deg", " degrees.", "It is 21 degrees."),
        ("def f():\n    ret", "\n    return", "def f():\n    return"),
        ("def f():\n    ret", "return", "def f():\n    return"),
        ("def f():\n    ret", "    return", "def f():\n    return"),
        ("a\n", "\n\nb", "a\n\nb"),
        ("It is 21 deg", " ", "It is 21 "),
        ("It is\n\n21", "\n", "It is\n\n"),
        ("unbro", "ken", "unbroken"),
    ],
)
async def test_other_students_get_no_blank_and_none_is_lost(how, written, reply, whole) -> None:
    student = Echo(reply=reply, given=[])
    teacher = WordTeacher(answer=written + "..", asked=[])
    message = await answer(make(teacher, student, guidance_tokens=len(written)), how, "Q")
    guidance = message.response_metadata["gkt"]["guidance"]
    assert message.text == whole
    assert message.text.startswith(guidance)
    assert student.given == [guidance.rstrip()]
