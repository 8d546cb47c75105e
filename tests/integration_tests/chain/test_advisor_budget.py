"""Advice, samples and turns of an advised agent are on the bill of its budget, in both orders."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from support.models.calling import PRICE, WrittenStudent, WrittenTeacher, weather

from langchain_gkt import Budget, BudgetExceeded
from langchain_gkt.advisor import AdvisorMiddleware
from langchain_gkt.gates import AgreementGate
from langchain_gkt.middleware import BudgetMiddleware

ASKED: Any = {"messages": [("human", "How is it in Rome?")]}
THREAD: Any = {"configurable": {"thread_id": "one"}}


def calls(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"{name}-call"}])


def student(*turns: Any) -> WrittenStudent:
    """Make the turn of its number; one that is a list is a turn for each sample."""

    def says(messages: Any, index: int) -> Any:
        turn = turns[sum(isinstance(m, AIMessage) for m in messages)]
        return turn[index % len(turn)] if isinstance(turn, list) else turn

    return WrittenStudent(says=says, ledger=[], asked=[])


def teacher(*texts: str) -> WrittenTeacher:
    said = iter(texts)
    return WrittenTeacher(says=lambda messages, index: next(said), ledger=[], asked=[])


def in_order(advisor_first: bool, budget: Any, advisor: Any) -> list[Any]:
    return [advisor, budget] if advisor_first else [budget, advisor]


async def run(agent: Any, given: Any, asynchronous: bool) -> dict[str, Any]:
    return await agent.ainvoke(given, THREAD) if asynchronous else agent.invoke(given, THREAD)


@pytest.mark.parametrize("advisor_first", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_bill_is_the_ledger(advisor_first, asynchronous) -> None:
    rome, oslo = calls("weather", city="Rome"), calls("weather", city="Oslo")
    driver = student(
        calls("ask_advisor", question="Which city?"), [rome, rome, oslo, oslo, rome], "Sunny."
    )
    adviser = teacher("1. Call weather.", "Rome.", "Do call it for Rome.")
    limit = Budget(usd="9")
    budget = BudgetMiddleware(limit, per_thread=limit, per_run=limit, teacher_price=PRICE)
    advisor = AdvisorMiddleware(adviser, gate=AgreementGate(samples=5, at_least=4))
    saver = InMemorySaver()
    agent = create_agent(
        driver, [weather], middleware=in_order(advisor_first, budget, advisor), checkpointer=saver
    )
    state = await run(agent, ASKED, asynchronous)
    assert next(m.text for m in state["messages"] if m.type == "tool") == "Rome."
    assert state["messages"][-1].text == "Sunny."
    assert (len(adviser.ledger), len(driver.ledger)) == (3, 1 + 5 + 1 + 5 + 1)
    ledger = [*adviser.ledger, *driver.ledger]
    bill = budget.report().teacher
    assert (bill.calls, bill.prompt_tokens) == (len(ledger), sum(p for p, _ in ledger))
    assert bill.completion_tokens == sum(written for _, written in ledger)
    values = agent.get_state(THREAD).values
    assert values["budget_of_thread"]["spent_tokens"] == sum(map(sum, ledger))
    assert not {"budget_key", "budget_of_run"} & values.keys()


@pytest.mark.parametrize("advisor_first", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_budget_refuses_advice_that_could_pass_it(advisor_first, asynchronous) -> None:
    small = Budget(tokens=60)
    for behavior in ("end", "error"):
        driver, adviser = student("Sunny."), teacher("A plan.")
        budget = BudgetMiddleware(per_thread=small, exit_behavior=behavior, end_message="Spent.")
        both = in_order(advisor_first, budget, AdvisorMiddleware(adviser))
        agent = create_agent(driver, middleware=both, checkpointer=InMemorySaver())
        if behavior == "error":
            with pytest.raises(BudgetExceeded, match=r"Budget\.tokens=60"):
                await run(agent, ASKED, asynchronous)
        else:
            state = await run(agent, ASKED, asynchronous)
            assert state["messages"][-1].text == "Spent."
        assert adviser.ledger == driver.ledger == []


@pytest.mark.parametrize("advisor_first", [False, True])
def test_an_answer_that_is_paid_stays_in_the_sum_if_the_next_one_is_refused(advisor_first) -> None:
    def ask(limit: int) -> tuple[Any, WrittenTeacher, int]:
        both = [{"name": "ask_advisor", "args": {"question": "Well?"}, "id": i} for i in "ab"]
        driver, adviser = student(AIMessage("", tool_calls=both), "Sunny."), teacher("Rome.", "It.")
        driver.max_tokens = 5
        advisor = AdvisorMiddleware(adviser, plan_tokens=0, repeated_call_tokens=0)
        budget = BudgetMiddleware(per_thread=Budget(tokens=limit), exit_behavior="end")
        order = in_order(advisor_first, budget, advisor)
        agent = create_agent(driver, middleware=order, checkpointer=InMemorySaver())
        last = agent.invoke(ASKED, THREAD)["messages"][-1]
        spent = agent.get_state(THREAD).values["budget_of_thread"]["spent_tokens"]
        assert spent == sum(map(sum, [*adviser.ledger, *driver.ledger]))
        return last.response_metadata["budget_exceeded"], adviser, spent

    refused, adviser, spent = ask(300)
    most = int(refused.split("may take up to ")[1].split(".")[0])
    assert adviser.ledger == []
    refused, adviser, more = ask(spent + most)
    assert len(adviser.ledger) == 1 and more > spent


@pytest.mark.parametrize("advisor_first", [False, True])
def test_a_turn_that_is_tried_again_pays_its_advice_once(advisor_first) -> None:
    driver, adviser = student("Sunny."), teacher("A plan.")
    said = iter([ConnectionError("no line"), "Sunny."])
    driver.says = lambda messages, index: next(said)
    budget = BudgetMiddleware(per_thread=Budget(tokens=10**6))
    both = in_order(advisor_first, budget, AdvisorMiddleware(adviser))
    retry = ModelRetryMiddleware(initial_delay=0)
    agent = create_agent(driver, middleware=[retry, *both], checkpointer=InMemorySaver())
    assert agent.invoke(ASKED, THREAD)["messages"][-1].text == "Sunny."
    assert len(adviser.ledger) == 1
    spent = agent.get_state(THREAD).values["budget_of_thread"]["spent_tokens"]
    assert spent >= sum(map(sum, [*adviser.ledger, *driver.ledger]))


def test_a_spent_budget_refuses_advice() -> None:
    driver, adviser = student("Sunny."), teacher("A plan.")
    small = Budget(usd="0.000001", on_exceeded="student", teacher_price=PRICE)
    advised = AdvisorMiddleware(adviser, budget=small)
    assert create_agent(driver, middleware=[advised]).invoke(ASKED)["messages"][-1].text == "Sunny."
    strict = AdvisorMiddleware(adviser, budget=Budget(usd="0.000001", teacher_price=PRICE))
    with pytest.raises(BudgetExceeded):
        create_agent(driver, middleware=[strict]).invoke(ASKED)
    assert adviser.ledger == []
