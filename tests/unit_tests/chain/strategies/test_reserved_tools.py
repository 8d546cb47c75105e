"""Tools whose own metadata leave their calls to the teacher."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from support.entry_points import ENTRY_POINTS, answer
from support.models.calling import (
    WrittenStudent,
    WrittenTeacher,
    call,
    samples,
    weather,
)

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain
from langchain_gkt.gates import AgreementGate

GATE = AgreementGate(samples=5, at_least=4)
TEACHERS = AIMessage("", tool_calls=[{"name": "refund", "args": {"to": "Al"}, "id": "teachers"}])


@tool
def refund(to: str) -> str:
    """Send money back."""
    return f"refunded {to}"


MARKED = refund.model_copy(update={"metadata": {"gkt_tools": "teacher", "team": "billing"}})
WRONG = call("refund", to="Eve")


def pair(student: Any, teacher: Any = TEACHERS, **fields: Any) -> GuidedKnowledgeTransferChain:
    policy = {name: fields.pop(name) for name in ("tools", "teacher_tools") if name in fields}
    return GuidedKnowledgeTransferChain(
        teacher=WrittenTeacher(says=samples(teacher), ledger=[], asked=[]),
        student=WrittenStudent(says=samples(student), ledger=[], asked=[]),
        guidance=GuidancePolicy(**{"tools": GATE, **policy}),
        **fields,
    )


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_a_marked_tool_is_the_teachers_whatever_agrees(how) -> None:
    for bound, maker in ((refund, "student"), (MARKED, "teacher")):
        chain = pair(WRONG)
        message = await answer(chain.bind_tools([weather, bound]), how, "Refund Al")
        gkt = message.response_metadata["gkt"]
        assert (gkt["finished_by"], gkt["agreement"]) == (maker, 1.0)
        assert len(chain.teacher.ledger) == (maker == "teacher")
    assert message.tool_calls == TEACHERS.tool_calls


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_marked_tool_of_an_agent(asynchronous) -> None:
    def says(messages: Any, index: int) -> Any:
        return "It is done." if messages[-1].type == "tool" else TEACHERS

    chain = pair(WRONG)
    chain.teacher.says = says
    agent = create_agent(chain, [weather, MARKED])
    asked: Any = {"messages": [("human", "Refund Al")]}
    state = await agent.ainvoke(asked) if asynchronous else agent.invoke(asked)
    assert [m.text for m in state["messages"] if m.type == "tool"] == ["refunded Al"]
    offered = [one["function"]["name"] for one in chain.teacher.asked[0]["tools"]]
    assert offered == ["weather", "refund"]


def test_a_mark_counts_however_tools_are_bound() -> None:
    for bound in (
        pair(WRONG).bind(tools=[MARKED]),
        pair(WRONG).bind(temperature=0.5).bind_tools([MARKED]),
        pair(WRONG, teacher_tools=["weather"]).bind_tools([weather, MARKED]),
    ):
        assert bound.invoke("Refund Al").tool_calls == TEACHERS.tool_calls


def test_tools_that_are_bound_again_leave_their_marks_behind() -> None:
    rome = call("weather", city="Rome")
    again = pair(rome).bind_tools([MARKED]).bind_tools([weather])
    assert again.invoke("Hello").response_metadata["gkt"]["finished_by"] == "student"


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_student_alone_cannot_call_a_reserved_tool_of_which_it_has_read(how) -> None:
    made = AIMessage(
        "",
        tool_calls=[
            {"name": "weather", "args": {"city": "Rome"}, "id": "one"},
            {"name": "refund", "args": {"to": "Eve"}, "id": "two"},
        ],
    )
    for fields in (
        {"mode": "student"},
        {"tools": "teacher", "teacher": ConnectionError("down"), "on_teacher_error": "student"},
    ):
        chain = pair(made, **fields)
        message = await answer(chain.bind_tools([weather, MARKED]), how, "Refund Al")
        assert [one["name"] for one in message.tool_calls] == ["weather"]
        (refused,) = message.invalid_tool_calls
        assert refused["name"] == "refund"
        offered = [one["function"]["name"] for one in chain.student.asked[-1]["tools"]]
        assert offered == ["weather"]


def test_bad_marks_and_names_are_refused_before_anything_is_asked() -> None:
    odd = refund.model_copy(update={"metadata": {"gkt_tools": "techer"}})
    chain = pair(WRONG)
    with pytest.raises(ValueError, match=r"'gkt_tools'\] of the tool 'refund' must be 'teacher'"):
        chain.bind_tools([odd])
    with pytest.raises(ValueError, match="must be 'teacher', not 'techer'"):
        chain.invoke("Refund Al", tools=[odd])
    listed = pair(WRONG, teacher_tools=["refnd"])
    with pytest.raises(ValueError, match="names 'refnd', which is none of the bound tools; did"):
        listed.bind_tools([weather, MARKED]).invoke("Refund Al")
    assert listed.teacher.ledger == listed.student.ledger == []
    agent = create_agent(pair(WRONG, teacher_tools=["pay"]), [weather, MARKED])
    with pytest.raises(ValueError, match="names 'pay', which is none of the bound tools"):
        agent.invoke({"messages": [("human", "Refund Al")]})
    assert chain.teacher.ledger == chain.student.ledger == []
