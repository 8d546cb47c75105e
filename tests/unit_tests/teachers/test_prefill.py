"""Teachers that refuse a begun answer are told to go on from it."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import WordTeacher, make

from langchain_gkt.teachers.prefill import accepts_prefill, as_instruction, without_repetition


class NamedTeacher(WordTeacher):
    """A teacher that refuses a begun answer, as newer Claude models do."""

    model: str = "claude-opus-4-6"

    def _generate(self, messages, *args, **kwargs):
        if messages[-1].type == "ai":
            raise ValueError("This model does not support assistant message prefill.")
        return super()._generate(messages, *args, **kwargs)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("claude-3-7-sonnet-latest", True),
        ("claude-opus-4-20250514", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-opus-4-6", False),
        ("anthropic/claude-sonnet-4.6", False),
        ("us.anthropic.claude-opus-4-6-v1:0", False),
        ("claude-haiku-5-20270101", False),
        ("gpt-4o-mini", True),
    ],
)
def test_which_models_refuse_a_begun_answer(name, accepted) -> None:
    assert accepts_prefill(NamedTeacher(model=name).with_retry()) is accepted
    assert accepts_prefill(NamedTeacher(model="claude-opus-4-6"), name) is accepted


BEGUN = [HumanMessage("How many?"), AIMessage("The number of the books is")]


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize("written", ["30, because", "The number of the books is 30, because"])
async def test_a_begun_answer_is_gone_on_with(how, written, student) -> None:
    teacher = NamedTeacher(answer=written, asked=[])
    chain = make(teacher, student, mode="teacher")
    message = await answer(chain, how, BEGUN)
    assert message.text == " 30, because"
    (asked,) = teacher.asked[-1]["messages"]
    assert asked.text.startswith("How many?")
    assert "The number of the books is" in asked.text
    with pytest.raises(Exception, match="does not support"):
        await answer(chain.model_copy(update={"teacher_prefill": True}), how, BEGUN)


@pytest.mark.slow
async def test_the_student_continues_both_and_any_teacher_can_be_told_so(student) -> None:
    teacher = WordTeacher(answer="30, because of what was bought.", asked=[])
    chain = make(teacher, student, guidance_tokens=12, teacher_prefill=False)
    assert chain.invoke(BEGUN).response_metadata["gkt"]["guidance"] == " 30, because "
    assert chain.guide(BEGUN).text == (await chain.aguide(BEGUN)).text == " 30, because "
    assert all(asked["messages"][-1].type == "human" for asked in teacher.asked)
    assert chain.invoke("How many?").text  # nothing is begun
    assert teacher.asked[-1]["messages"][-1].text == "How many?"


@pytest.mark.parametrize(
    ("begun", "written", "want"),
    [
        ("He has ", "three", "three"),
        ("He has ", "He has three", "three"),
        ("1, 2,", "3, 4", " 3, 4"),
        ("A list:\n", "- one", "- one"),
        ("Once upon a time there", "upon a time there was", " was"),
        ("so we go to", "to the shop", " to the shop"),
    ],
)
def test_what_is_repeated_is_left_out(begun, written, want) -> None:
    assert without_repetition(begun, AIMessage(written)).text == want


def test_an_empty_beginning_is_left_out() -> None:
    assert as_instruction([BEGUN[0], AIMessage(" ")]) == BEGUN[:1]
