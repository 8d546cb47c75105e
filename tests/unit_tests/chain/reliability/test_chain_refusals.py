"""A teacher's refusal is shown, unless the student is to answer instead."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from support.entry_points import answer
from support.models.fakes import MODELS, WordTeacher

from langchain_gkt import CircuitBreaker, GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.teachers.refusals import TeacherRefused, refusal_in

QUESTION = "What is 3 plus 4?"
SORRY = "I'm sorry, I can't help with that."


class Refusing(WordTeacher):
    """A teacher with one reply, whatever it is."""

    reply: Any = None

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.reply)])


class Filtered(Exception):
    """What a client raises if the prompt is filtered."""

    status_code, code = 400, "content_filter"


@pytest.fixture(scope="module")
def student():
    student = HuggingFaceStudent(model=MODELS / "student", max_tokens=4)
    yield student
    student.close()


def chain_of(student: Any, reply: AIMessage | None = None, **fields: Any) -> Any:
    raised = {"fails_with": Filtered("the prompt was filtered")} if reply is None else {}
    teacher = Refusing(reply=reply) if reply else WordTeacher(answer="x", **raised)
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)


WORDS = [
    (AIMessage("", additional_kwargs={"refusal": SORRY}), "refusal", SORRY),
    (AIMessage([{"type": "refusal", "refusal": SORRY}]), "refusal", SORRY),
    (
        AIMessage("First", response_metadata={"finish_reason": "content_filter"}),
        "content_filter",
        "First",
    ),
    (AIMessage(SORRY, response_metadata={"stop_reason": "refusal"}), "refusal", SORRY),
    (AIMessage("", response_metadata={"finish_reason": "SAFETY"}), "safety", ""),
]


@pytest.mark.parametrize(("reply", "reason", "text"), WORDS)
def test_refusals_are_recognised(reply, reason, text) -> None:
    found = refusal_in(reply)
    assert found is not None and (found.reason, found.text) == (reason, text)


def test_an_ordinary_reply_is_none() -> None:
    assert refusal_in(AIMessage(SORRY, response_metadata={"finish_reason": "stop"})) is None
    assert refusal_in(AIMessage([{"type": "text", "text": "hi"}])) is None


@pytest.mark.parametrize("entry_point", ["invoke", "astream"])
@pytest.mark.parametrize("on_teacher_error", ["raise", "student"])
async def test_by_default_the_user_sees_it(entry_point, on_teacher_error, student) -> None:
    for reply, reason, text in WORDS[:-1]:
        chain = chain_of(student, reply, on_teacher_error=on_teacher_error)
        message = await answer(chain, entry_point, QUESTION)
        gkt = message.response_metadata["gkt"]
        assert message.text == text and gkt["finished_by"] == "teacher"
        assert gkt["refusal"].startswith(reason) and gkt["student_usage"] is None


@pytest.mark.parametrize("on_teacher_error", ["raise", "student"])
@pytest.mark.parametrize("reply", [WORDS[-1][0], None], ids=["no words", "filtered prompt"])
async def test_without_words_it_is_an_error(reply, on_teacher_error, student) -> None:
    breaker = CircuitBreaker(failures=1)
    chain = chain_of(student, reply, on_teacher_error=on_teacher_error, circuit_breaker=breaker)
    with pytest.raises(TeacherRefused, match="on_refusal='student'") as found:
        await chain.ainvoke(QUESTION)
    assert not found.value.retryable and breaker.state == "closed"
    assert found.value.status == (400 if reply is None else None)


@pytest.mark.parametrize("reply", [*(row[0] for row in WORDS), None])
def test_the_student_answers_if_it_is_told_to(reply, student) -> None:
    message = chain_of(student, reply, on_refusal="student").invoke(QUESTION)
    gkt = message.response_metadata["gkt"]
    assert gkt["finished_by"] == "student" and gkt["refusal"] and gkt["guidance"] == ""
    assert gkt["fallback"].startswith("the teacher refused: ") and SORRY not in message.text
