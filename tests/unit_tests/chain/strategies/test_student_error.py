"""A student that fails, or cannot read the prompt: the teacher may answer the whole turn."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from support.entry_points import ENTRY_POINTS, answer
from support.models.saying import Adding, Saying, reply
from support.models.scripted import add

from langchain_gkt import (
    ConfigurationError,
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    StudentError,
    TeacherError,
    track_costs,
)
from langchain_gkt.gates import Gate

WHOLE = "Two and three make five, and that is all there is to it."
BEGUN = "Two and three make"
OTHER = "It is five."


def says(limit: int | None) -> AIMessage:
    """Say the same answer, in whole or as far as the limit lets it."""
    if limit is None:
        return reply(WHOLE, tokens=14, reason="stop")
    return reply(f"{BEGUN} five, a", tokens=limit, reason="length")


def says_another(limit: int | None) -> AIMessage:
    """Say another answer the second time."""
    return says(limit) if limit else reply(OTHER, tokens=5, reason="stop")


def make(student: Any, teach: Any = says, **fields: Any) -> GuidedKnowledgeTransferChain:
    fields = {"guidance_tokens": 6, "on_student_error": "teacher", **fields}
    teacher = Saying(asked=[], says=teach)
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize("fails_after", [0, 1])
async def test_the_teacher_answers_for_a_student_that_fails(how, fails_after) -> None:
    chain = make(Adding(fails_after=fails_after))
    with track_costs() as costs:
        message = await answer(chain, how, "2 + 3?")
    gkt = message.response_metadata["gkt"]
    assert gkt["fallback"].startswith("the student failed: StudentError: ")
    assert "out of memory" in gkt["fallback"]
    assert (gkt["finished_by"], gkt["teacher_calls"], gkt["mode"]) == ("teacher", 2, "guided")
    assert gkt["teacher_usage"]["output_tokens"] == 6 + 14
    streams = how in ("stream", "astream", "astream_events")
    if streams and fails_after:  # what was shown cannot be taken back
        assert message.text.endswith(WHOLE)
        assert message.text.startswith(f"{BEGUN} five, and")
    else:
        assert message.text == WHOLE
    paid = costs.report().to_dict()["teacher"]
    assert (paid["calls"], paid["completion_tokens"]) == (2, 20)


@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_another_answer_follows_what_was_shown(how) -> None:
    message = await answer(make(Adding(fails_after=0), says_another), how, "2 + 3?")
    assert message.text == (OTHER if how == "invoke" else f"{BEGUN} five, \n\n{OTHER}")


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_the_teacher_answers_what_the_student_cannot_read(how) -> None:
    chain = make(Adding(refuses=ValueError("messages[0] holds an image")))
    message = await answer(chain, how, "What is this?")
    gkt = message.response_metadata["gkt"]
    assert message.text == WHOLE
    assert gkt["fallback"] == "the student failed: ValueError: messages[0] holds an image"
    assert [asked["limit"] for asked in chain.teacher.asked] == [None]


class Unsure(Gate):
    """Asks for more as long as it is measured; the student fails in it."""

    kind: ClassVar[str] = "unsure for student errors"

    def measure(self, student: Any, messages: Any) -> dict[str, float]:
        raise RuntimeError("out of memory")

    def decide(self, signals: Any) -> Any:
        return "some"


@pytest.mark.parametrize("ladder", [None, (4, 8), (0, 4, "all")])
@pytest.mark.parametrize("refuses", [None, ValueError("an image")])
@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_gates_and_ladders_too(how, refuses, ladder) -> None:
    policy = GuidancePolicy(gate=Unsure(), ladder=ladder)
    # The teacher repeats what it has begun, which is left out.
    chain = make(Adding(refuses=refuses), guidance=policy, teacher_prefill=False)
    message = await answer(chain, how, "2 + 3?")
    assert message.text == WHOLE
    assert message.response_metadata["gkt"]["fallback"].startswith("the student failed: ")
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"


def test_it_is_an_error_by_default() -> None:
    refusing = make(Adding(refuses=ValueError("an image")), on_student_error="raise")
    with pytest.raises(ConfigurationError, match="an image"):
        refusing.invoke("x")
    assert not refusing.teacher.asked
    failing = make(Adding(fails_after=0), on_student_error="raise")
    with pytest.raises(StudentError, match="out of memory"):
        failing.invoke("x")
    with pytest.raises(ValueError, match="on_student_error"):
        make(Adding(), on_student_error="ignore")


def test_the_student_alone_has_no_teacher_to_fall_back_to() -> None:
    alone = make(Adding(fails_after=0), mode="student")
    with pytest.raises(StudentError, match="out of memory"):
        alone.invoke("x")
    assert not alone.teacher.asked


def test_where_both_fail_the_call_fails() -> None:
    both = make(
        Adding(fails_after=0), lambda limit: ConnectionError("down"), on_teacher_error="student"
    )
    with pytest.raises(StudentError, match="out of memory"):
        both.invoke("x")
    assert len(both.teacher.asked) == 1
    second = make(
        Adding(fails_after=0),
        lambda limit: says(limit) if limit else ConnectionError("down"),
        on_teacher_error="student",
    )
    with pytest.raises(TeacherError, match="down"):
        second.invoke("x")


def test_cache_keys_tell_it() -> None:
    one, other = make(Adding()), make(Adding(), on_student_error="raise")
    assert one._get_llm_string() != other._get_llm_string()


@tool
def photo() -> list[dict[str, Any]]:
    """Take a photo."""
    return [{"type": "image", "base64": "AAAA", "mime_type": "image/png"}]


def of_a_photo(messages: list[Any]) -> bool:
    return any(isinstance(message, ToolMessage) for message in messages)


class Blind(Adding):
    """Reads text only."""

    def check(self, messages, **kwargs):
        if of_a_photo(messages):
            raise ValueError("messages[2] holds an image")
        return 0


def photographs(**fields: Any) -> GuidedKnowledgeTransferChain:
    """A chain whose teacher takes a photo, and then says what is on it."""
    call = reply(tokens=3, tool_calls=[{"name": "photo", "args": {}, "id": "1"}])
    teacher = Saying(
        asked=[],
        says=lambda limit: (
            reply(WHOLE, tokens=14, reason="stop")
            if of_a_photo(teacher.asked[-1]["messages"])
            else call
        ),
    )
    return GuidedKnowledgeTransferChain(teacher=teacher, student=Blind(), **fields)


def test_an_agent_goes_on_behind_an_image() -> None:
    chain = photographs(on_student_error="teacher")
    state = create_agent(model=chain, tools=[photo]).invoke({"messages": [HumanMessage("Look!")]})
    assert state["messages"][-1].text == WHOLE
    assert "holds an image" in state["messages"][-1].response_metadata["gkt"]["fallback"]


def test_fallbacks_work_inside_an_agent() -> None:
    chain = photographs()
    model: Any = chain.with_fallbacks([chain.bind(mode="teacher")])
    state = create_agent(model=model, tools=[photo]).invoke({"messages": [HumanMessage("Look!")]})
    last = state["messages"][-1]
    assert last.text == WHOLE
    assert last.response_metadata["gkt"]["mode"] == "teacher"
    assert [tool.name for tool in (photo,)] == [
        tool["function"]["name"] for tool in chain.teacher.asked[-1]["tools"]
    ]


def test_what_is_bound_stays_bound() -> None:
    chain = make(Adding(), lambda limit: reply(WHOLE, tokens=3, reason="stop"))
    bound = chain.bind(mode="teacher", stop=["x"]).with_config(tags=["t"])
    tools: Any = bound.bind_tools([add], tool_choice="auto")
    assert tools.invoke("2 + 3?").response_metadata["gkt"]["mode"] == "teacher"
    [asked] = chain.teacher.asked
    assert [t["function"]["name"] for t in asked["tools"]] == ["add"]
    assert (tools.kwargs["stop"], tools.config["tags"]) == (["x"], ["t"])
    both: Any = chain.bind_tools([add]).bind_tools([photo])  # the later ones count, as ever
    assert [t["function"]["name"] for t in both.kwargs["tools"]] == ["photo"]


def test_a_bound_mode_reaches_structured_answers() -> None:
    said = reply(tokens=3, tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "1"}])
    chain = make(Adding(), lambda limit: said)
    schema = {"title": "add", "description": "x", "type": "object", "properties": {"a": {}}}
    asking: Any = chain.bind(mode="teacher").with_structured_output(schema, include_raw=True)
    raw = asking.invoke("x")["raw"]
    assert raw.response_metadata["gkt"]["mode"] == "teacher"
