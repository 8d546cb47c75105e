"""Agents that a student drives: advised by a teacher, or with calls by agreement."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    SummarizationMiddleware,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from support.models.calling import (
    PRICE,
    WrittenStudent,
    WrittenTeacher,
    call,
    check_bill,
    pay,
    samples,
    weather,
)
from support.models.fakes import WordTeacher

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    TeacherError,
    track_costs,
)
from langchain_gkt.advisor import AdvisorMiddleware
from langchain_gkt.gates import AgreementGate

GATE = AgreementGate(samples=5, at_least=4)
ASKED = {"messages": [("human", "How is it in Rome?")]}
THREAD: Any = {"configurable": {"thread_id": "one"}}


def calls(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"{name}-call"}])


def fails(city: str) -> str:
    raise ToolException(f"no station in {city}")


STATION = StructuredTool.from_function(
    fails, name="station", description="Name a station.", handle_tool_error=True
)


def steps(*turns: Any) -> WrittenStudent:
    """A student that makes one turn after the other, by the number of its turns so far."""

    def says(messages: Any, index: int) -> Any:
        made = [m for m in messages if isinstance(m, AIMessage)]
        asked = [m for m in messages if isinstance(m, HumanMessage) and "advisor" not in m.text]
        turn = turns[(len(made) - (len(asked) - 1)) % len(turns)]
        return turn[index % len(turn)] if isinstance(turn, list) else turn

    return WrittenStudent(says=says, ledger=[], asked=[])


def adviser(*texts: str) -> WrittenTeacher:
    model = WrittenTeacher(ledger=[], asked=[])
    said = iter(texts)
    model.says = lambda messages, index: next(said)
    return model


async def run(agent: Any, given: Any, asynchronous: bool, config: Any = None) -> dict[str, Any]:
    return await agent.ainvoke(given, config) if asynchronous else agent.invoke(given, config)


def hints_of(asked: dict[str, Any]) -> list[str]:
    return [
        m.text for m in asked["messages"] if isinstance(m, HumanMessage) and "advisor" in m.text
    ]


def check_teachers_bill(report: Any, teacher: Any) -> None:
    assert report.teacher.calls == len(teacher.ledger)
    assert report.teacher.completion_tokens == sum(written for _, written in teacher.ledger)
    assert (
        report.teacher.known_cost
        == sum(
            PRICE.input_mtok * prompt + PRICE.output_mtok * written
            for prompt, written in teacher.ledger
        )
        / 10**6
    )


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_plan_is_written_once_for_each_question(asynchronous) -> None:
    student = steps(calls("weather", city="Rome"), "It is sunny.")
    teacher = adviser("1. Call weather.", "1. Call it again.")
    agent = create_agent(
        student,
        [weather],
        system_prompt="Be polite.",
        middleware=[AdvisorMiddleware(teacher, plan_tokens=30)],
        checkpointer=InMemorySaver(),
    )
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(agent, ASKED, asynchronous, THREAD)
        assert [asked["limit"] for asked in teacher.asked] == [30]
        for asked in student.asked:
            rules = asked["messages"][0].text
            assert rules == "Be polite.\n\nA plan by an experienced advisor:\n1. Call weather."
        again = await run(agent, {"messages": [("human", "And now?")]}, asynchronous, THREAD)
    assert (state["messages"][-1].text, "advice" in state) == ("It is sunny.", False)
    assert "1. Call it again." in student.asked[-1]["messages"][0].text
    assert len(again["messages"]) == 6
    assert [one["text"] for one in agent.get_state(THREAD).values["advice"]] == [
        "1. Call weather.",
        "1. Call it again.",
    ]
    told = teacher.asked[0]["messages"]
    assert "- weather: Say what the weather will be." in told[0].text
    assert "Be polite." in told[0].text and "tools" not in teacher.asked[0]
    assert told[-1].text.startswith("How is it in Rome?\nWrite a plan")
    check_teachers_bill(costs.report(), teacher)
    assert costs.report().teacher.calls == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hint_follows_two_failures_and_is_shown_once(asynchronous) -> None:
    student = steps(
        calls("station", city="Rome"),
        calls("station", city="Roma"),
        calls("weather", city="Rome"),
        "Sunny.",
    )
    teacher = adviser("Use the tool weather. It")
    agent = create_agent(
        student,
        [STATION, weather],
        middleware=[AdvisorMiddleware(teacher, plan_tokens=0, tool_error_tokens=9)],
    )
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(agent, ASKED, asynchronous)
    assert [hints_of(asked) for asked in student.asked] == [
        [],
        [],
        ["An experienced advisor says: Use the tool weather. It"],
        [],
    ]
    assert not any("advisor" in m.text for m in state["messages"])
    assert teacher.asked[0]["limit"] == 9
    assert "Result of station: no station in Roma" in teacher.asked[0]["messages"][-1].text
    check_teachers_bill(costs.report(), teacher)


async def test_a_repeated_call_is_hinted_at_so_often_and_no_more() -> None:
    again = calls("weather", city="Rome")
    student = steps(again, again, again, again, "Sunny.")
    teacher = adviser("Answer now.", "Do answer.")
    middle = AdvisorMiddleware(teacher, plan_tokens=0, repeated_call_tokens=8, max_hints=2)
    create_agent(student, [weather], middleware=[middle]).invoke(ASKED)
    assert [len(hints_of(asked)) for asked in student.asked] == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_student_that_wavers_is_given_a_hint(asynchronous) -> None:
    rome, oslo = calls("weather", city="Rome"), calls("weather", city="Oslo")
    student = steps([rome, rome, oslo, oslo, rome], "Sunny.")
    teacher = adviser("Ask for Rome.")
    middle = AdvisorMiddleware(teacher, plan_tokens=0, low_agreement_tokens=7, gate=GATE)
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(
            create_agent(student, [weather], middleware=[middle]), ASKED, asynchronous
        )
    assert state["messages"][-1].text == "Sunny."
    assert len(student.ledger) == 5 + 1 + 5 + 1
    assert [len(hints_of(asked)) for asked in student.asked] == [0] * 5 + [1] + [0] * 6
    tried = teacher.asked[0]["messages"][-1].text
    assert 'Call weather({"city": "Rome"})' in tried and '{"city": "Oslo"}' in tried
    check_teachers_bill(costs.report(), teacher)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_student_asks_by_a_tool(asynchronous) -> None:
    student = steps(calls("ask_advisor", question="Which city?"), "Rome it is.")
    teacher = adviser("The one you were asked for.")
    middle = AdvisorMiddleware(teacher, plan_tokens=0, asked_tokens=11, max_hints=1)
    agent = create_agent(student, [weather], middleware=[middle], checkpointer=InMemorySaver())
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(agent, ASKED, asynchronous, THREAD)
    answer = state["messages"][2]
    assert isinstance(answer, ToolMessage) and answer.text == "The one you were asked for."
    assert teacher.asked[0]["limit"] == 11
    assert teacher.asked[0]["messages"][-1].text.endswith("asks you: Which city?")
    assert agent.get_state(THREAD).values["advice"][0]["kind"] == "asked"
    check_teachers_bill(costs.report(), teacher)
    twice = steps(*[calls("ask_advisor", question="Which?")] * 2, "Rome.")
    off = {"plan_tokens": 0, "repeated_call_tokens": 0}
    agent = create_agent(twice, middleware=[AdvisorMiddleware(adviser("It."), max_hints=1, **off)])
    state = await run(agent, ASKED, asynchronous)
    assert state["messages"][4].text == "The advisor has said enough. Decide by yourself."
    assert AdvisorMiddleware(teacher, asked_tokens=0).tools == []


@pytest.mark.parametrize("advisor_first", [False, True])
def test_with_fallbacks_in_both_orders_a_plan_is_paid_once(advisor_first) -> None:
    broken = WrittenStudent(says=samples(ConnectionError("no line")), ledger=[], asked=[])
    student = steps(calls("weather", city="Rome"), "Sunny.")
    teacher = adviser("1. Call weather.")
    both: list[Any] = [ModelFallbackMiddleware(student), AdvisorMiddleware(teacher)]
    agent = create_agent(broken, [weather], middleware=both[::-1] if advisor_first else both)
    assert agent.invoke(ASKED)["messages"][-1].text == "Sunny."
    assert len(teacher.ledger) == 1
    assert "1. Call weather." in student.asked[-1]["messages"][0].text


@pytest.mark.parametrize("advisor_first", [False, True])
def test_with_summaries_in_both_orders_the_plan_stays(advisor_first) -> None:
    again = calls("weather", city="Rome")
    student = steps(again, "Sunny.")
    made = iter([again, calls("weather", city="Oslo"), calls("weather", city="Bern"), "Sunny."])
    student.says = lambda messages, index: next(made)
    teacher = adviser("1. Call weather.")
    summing = SummarizationMiddleware(
        WordTeacher(answer="They asked for the weather.", asked=[]),
        trigger=("messages", 4),
        keep=("messages", 2),
    )
    both: list[Any] = [summing, AdvisorMiddleware(teacher)]
    agent = create_agent(student, [weather], middleware=both[::-1] if advisor_first else both)
    state = agent.invoke(ASKED)
    assert state["messages"][0].text.startswith("Here is a summary")
    assert len(teacher.ledger) == 1
    assert all("1. Call weather." in asked["messages"][0].text for asked in student.asked)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_interrupted_agent_goes_on_with_its_plan(asynchronous) -> None:
    student = steps(calls("pay", amount=3, to="Al"), "Paid.")
    teacher = adviser("1. Pay.")
    agent = create_agent(
        student,
        [pay],
        middleware=[AdvisorMiddleware(teacher), HumanInTheLoopMiddleware({"pay": True})],
        checkpointer=InMemorySaver(),
    )
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(agent, {"messages": [("human", "Pay Al 3")]}, asynchronous, THREAD)
        assert state["__interrupt__"]
        yes = Command(resume={"decisions": [{"type": "approve"}]})
        state = await run(agent, yes, asynchronous, THREAD)
    assert [m.text for m in state["messages"][-2:]] == ["paid 3.0 to Al", "Paid."]
    assert len(teacher.ledger) == 1
    assert "1. Pay." in student.asked[-1]["messages"][0].text
    check_teachers_bill(costs.report(), teacher)


def test_a_teacher_that_fails_is_an_error_or_done_without() -> None:
    down = WrittenTeacher(says=samples(ConnectionError("no line")), ledger=[], asked=[])
    with pytest.raises(TeacherError, match="no line"):
        create_agent(steps("Sunny."), middleware=[AdvisorMiddleware(down)]).invoke(ASKED)
    alone = AdvisorMiddleware(down, on_teacher_error="student")
    student = steps(calls("ask_advisor", question="Well?"), "Sunny.")
    state = create_agent(student, middleware=[alone]).invoke(ASKED)
    assert state["messages"][2].text == "The advisor cannot be reached. Decide by yourself."
    assert state["messages"][-1].text == "Sunny."


def test_an_adviser_refuses_bad_input_by_name() -> None:
    teacher = adviser()
    with pytest.raises(TypeError, match="needs a teacher"):
        AdvisorMiddleware(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'teacher'"):
        AdvisorMiddleware()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="teacher"):
        AdvisorMiddleware(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes no max_tokens"):
        AdvisorMiddleware(teacher, max_tokens=3)
    with pytest.raises(TypeError, match="timeout"):
        AdvisorMiddleware(teacher, timeot=3)
    with pytest.raises(ValueError, match="plan_tokens"):
        AdvisorMiddleware(teacher, plan_tokens=-1)
    with pytest.raises(TypeError, match="gate must be an AgreementGate"):
        AdvisorMiddleware(teacher, gate=0.5)  # type: ignore[arg-type]


def test_a_student_without_a_place_for_tools_is_refused_before_a_plan_is_paid(student) -> None:
    teacher = adviser("1. Call weather.")
    agent = create_agent(student, [weather], middleware=[AdvisorMiddleware(teacher)])
    with pytest.raises(ValueError, match="the chat template of this HuggingFaceStudent has no"):
        agent.invoke(ASKED)
    assert teacher.ledger == []
    short = student.model_copy(update={"max_tokens": 2})
    off = AdvisorMiddleware(teacher, asked_tokens=0)
    create_agent(short, middleware=[off]).invoke(ASKED)
    assert len(teacher.ledger) == 1


def test_a_marked_tool_is_refused_where_the_student_makes_every_call() -> None:
    marked = pay.model_copy(update={"metadata": {"gkt_tools": "teacher"}})
    student, teacher = steps("Paid."), adviser("1. Pay.")
    asked: Any = {"messages": [("human", "Pay Al 3")]}
    for model in (
        student,
        GuidedKnowledgeTransferChain(teacher=teacher, student=student, mode="student"),
    ):
        agent = create_agent(model, [marked], middleware=[AdvisorMiddleware(teacher)])
        with pytest.raises(ValueError, match="'pay' is marked gkt_tools='teacher', but in this"):
            agent.invoke(asked)
    assert teacher.ledger == student.ledger == []
    pair = voting(steps([call("pay", amount=3, to="Eve")], ["Paid."]), adviser("It is paid."))
    agent = create_agent(pair, [marked], middleware=[AdvisorMiddleware(teacher, asked_tokens=0)])
    assert agent.invoke(asked)["messages"][-1].text == "It is paid."


# --- calls by agreement, in an agent ---


def voting(student: Any, teacher: Any, **policy: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance=GuidancePolicy(tools=GATE, **policy)
    )


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agents_calls_are_the_students_where_it_is_sure(asynchronous) -> None:
    rome = call("weather", city="Rome")
    student = steps([rome], [rome, call("weather", city="Oslo")], ["Sunny."])
    teacher = steps("", calls("weather", city="Bern"), "It is sunny.")
    teacher = WrittenTeacher(says=teacher.says, ledger=[], asked=[])
    agent = create_agent(voting(student, teacher), [weather], checkpointer=InMemorySaver())
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(agent, ASKED, asynchronous, THREAD)
    made = [m for m in state["messages"] if isinstance(m, AIMessage)]
    assert [m.response_metadata["gkt"]["finished_by"] for m in made] == [
        "student",
        "teacher",
        "teacher",
    ]
    assert [m.tool_calls[0]["args"]["city"] for m in made[:2]] == ["Rome", "Bern"]
    assert made[-1].text == "It is sunny."
    assert len(teacher.ledger) == 2
    check_bill(costs.report(), teacher, student)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_voted_call_waits_for_a_human(asynchronous) -> None:
    student = steps([call("pay", amount=3, to="Al")], ["Paid."])
    teacher = WrittenTeacher(says=samples("It is paid."), ledger=[], asked=[])
    agent = create_agent(
        voting(student, teacher),
        [pay],
        middleware=[HumanInTheLoopMiddleware({"pay": True})],
        checkpointer=InMemorySaver(),
    )
    with track_costs(teacher_price=PRICE) as costs:
        state = await run(agent, {"messages": [("human", "Pay Al 3")]}, asynchronous, THREAD)
        (asked,) = state["__interrupt__"][0].value["action_requests"]
        assert asked["args"] == {"amount": 3, "to": "Al"}
        assert teacher.ledger == []
        no = Command(resume={"decisions": [{"type": "reject", "message": "Not now"}]})
        state = await run(agent, no, asynchronous, THREAD)
    assert state["messages"][-1].text == "It is paid."
    check_bill(costs.report(), teacher, student)


async def test_a_streaming_agent_shows_a_voted_call_when_it_is_decided() -> None:
    student = steps([call("weather", city="Rome")], ["Sunny."])
    teacher = WrittenTeacher(says=samples("It is sunny."), ledger=[], asked=[])
    agent = create_agent(voting(student, teacher), [weather])
    with track_costs(teacher_price=PRICE) as costs:
        shown = [
            message
            async for message, _ in agent.astream(ASKED, stream_mode="messages")
            if not isinstance(message, ToolMessage)
        ]
    names = [c["name"] for message in shown for c in message.tool_call_chunks if c["name"]]
    assert names == ["weather"]
    assert "".join(message.text for message in shown) == "It is sunny."
    check_bill(costs.report(), teacher, student)
