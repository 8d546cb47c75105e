"""One guided call: its metadata, and what happens when the teacher fails."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage
from support.entry_points import ENTRY_POINTS, answer
from support.models.exam import pair
from support.models.fakes import WordTeacher, limit_inside, make
from support.models.scripted import ToolTeacher

from langchain_gkt import GuidancePolicy, TeacherError
from langchain_gkt.chain.strategy import strategy_names
from langchain_gkt.metadata import GKTMetadata

USAGE = {"input_tokens": 1, "output_tokens": 13, "total_tokens": 14}


def test_metadata_says_what_happened(teacher, student, problem) -> None:
    limit = limit_inside(problem.plan, problem.solution)
    message = make(teacher, student, guidance_tokens=limit).invoke(problem.question)
    gkt = message.response_metadata["gkt"]
    assert gkt["guidance"] == problem.plan + " "
    assert gkt["guidance_tokens"] == limit  # what was cut away was paid for
    assert gkt["finished_by"] == "student"
    assert gkt["fallback"] is None
    assert gkt["teacher_usage"]["output_tokens"] == limit
    assert gkt["student_usage"]["output_tokens"] > 0
    assert message.response_metadata["model_name"] == "langchain-gkt"
    kept = len(gkt["guidance"])  # this teacher's tokens are characters
    assert kept < limit
    assert message.usage_metadata["output_tokens"] == kept + gkt["student_usage"]["output_tokens"]


FIELDS = set(GKTMetadata.__annotations__)


@pytest.mark.slow
@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize("mode", strategy_names())
async def test_the_metadata_is_a_whole_gkt_metadata(mode, how, teacher, student, problem) -> None:
    chain = make(teacher, student, mode=mode, guidance_tokens=len(problem.plan) + 3)
    gkt = (await answer(chain, how, problem.question)).response_metadata["gkt"]
    assert set(gkt) == FIELDS
    assert gkt["mode"] == mode
    assert gkt["finished_by"] == ("teacher" if mode == "teacher" else "student")
    assert gkt["teacher_calls"] == (0 if mode == "student" else 1)
    assert (gkt["student_usage"] is None) == (mode == "teacher")


def test_tool_calls_fallbacks_and_gates_have_the_same_metadata(student, problem) -> None:
    calling = make(ToolTeacher(), student).bind_tools([{"name": "f", "parameters": {}}])
    down = WordTeacher(asked=[], fails_with=ConnectionError("down"))
    alone = make(down, student, on_teacher_error="student")
    for chain in (calling, alone, pair(guidance=GuidancePolicy(ask=0.5))):
        message = chain.invoke("What is one more than 10?")
        assert set(message.response_metadata["gkt"]) == FIELDS


def test_a_failing_teacher_is_named(student, problem) -> None:
    teacher = WordTeacher(answer="x", asked=[], fails_with=ConnectionError("refused"))
    with pytest.raises(TeacherError, match=r"ConnectionError: refused.*on_teacher_error") as caught:
        make(teacher, student).invoke(problem.question)
    assert isinstance(caught.value.__cause__, ConnectionError)
    chain = make(teacher, student, on_teacher_error="student")
    gkt = chain.invoke(problem.question).response_metadata["gkt"]
    assert gkt["fallback"] == "ConnectionError: refused"
    assert gkt["finished_by"] == "student"


def test_one_failing_row_loses_no_other(teacher, whole_student, problem) -> None:
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
    good, bad = chain.batch([problem.question, ""], return_exceptions=True)
    assert good.text == problem.solution
    assert isinstance(bad, ValueError)


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_an_empty_prompt_is_refused_before_anything_is_paid(how, teacher, student) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        await answer(make(teacher, student), how, "  ")
    assert not teacher.asked


def test_a_silent_teacher_is_refused(student, problem) -> None:
    teacher = WordTeacher(answer="", asked=[])
    with pytest.raises(TeacherError, match=r"returned no text.*on_teacher_error='student'"):
        make(teacher, student).invoke(problem.question)


def test_streams_equal_answers_where_limits_are_ignored_or_stops_reached(student) -> None:
    wordy = "One two three four five six seven eight nine ten eleven twelve."
    disobedient = ToolTeacher(log=[])
    object.__setattr__(disobedient, "_reply", lambda *_: AIMessage(wordy, usage_metadata=USAGE))
    chain = make(disobedient, student, guidance_tokens=5, max_tokens=12)
    with pytest.warns(UserWarning, match="although it was asked"):
        streamed = "".join(c.text for c in chain.stream("Hello"))
    assert streamed == chain.invoke("Hello").text
    stopped = make(ToolTeacher(), student, guidance_tokens=40)
    want = stopped.invoke("Hello", stop=["well"]).text
    assert want == "Hello there, and "
    assert "".join(c.text for c in stopped.stream("Hello", stop=["well"])) == want
