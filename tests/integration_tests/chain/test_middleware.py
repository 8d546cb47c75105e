from __future__ import annotations

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langgraph.checkpoint.memory import InMemorySaver
from support.models.fakes import WordTeacher
from support.models.scripted import ToolTeacher, add, save_scripted

from langchain_gkt import (
    Budget,
    BudgetExceeded,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    Price,
)
from langchain_gkt.middleware import BudgetMiddleware, GuidanceMiddleware

SUM = {"messages": [("human", "please add 3 and 4")]}
PRICE = Price(input_mtok="1", output_mtok="2")


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> HuggingFaceStudent:
    return HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))


class Broken(ToolTeacher):
    def _generate(self, *args, **kwargs):
        raise ConnectionError("no line")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_plain_turns_are_guided_and_tool_calls_whole(student, asynchronous) -> None:
    guidance = GuidanceMiddleware(student=student, guidance_tokens=6)
    agent = create_agent(ToolTeacher(), [add], middleware=[guidance])
    state = await agent.ainvoke(SUM) if asynchronous else agent.invoke(SUM)
    called, last = state["messages"][1], state["messages"][-1]
    assert called.tool_calls[0]["args"] == {"a": 3, "b": 4}
    assert last.text.endswith("the answer to this is: 7.")
    assert last.response_metadata["gkt"]["finished_by"] == "student"


@pytest.mark.parametrize("guidance_first", [False, True])
def test_with_fallbacks_in_both_orders(student, guidance_first) -> None:
    both = [
        ModelFallbackMiddleware(ToolTeacher()),
        GuidanceMiddleware(student=student, guidance_tokens=6),
    ]
    order = both[::-1] if guidance_first else both
    state = create_agent(Broken(), [add], middleware=order).invoke(SUM)
    last = state["messages"][-1]
    assert last.text.endswith("the answer to this is: 7.")
    # In front, it does not see the model that the other one takes.
    assert ("gkt" in last.response_metadata) is not guidance_first


@pytest.mark.parametrize("guidance_first", [False, True])
def test_a_budget_counts_both_models(student, guidance_first) -> None:
    budget = BudgetMiddleware(Budget(usd="1"), teacher_price=PRICE)
    both = [budget, GuidanceMiddleware(student=student, guidance_tokens=6)]
    order = both[::-1] if guidance_first else both
    state = create_agent(ToolTeacher(), [add], middleware=order).invoke(SUM)
    assert state["messages"][-1].response_metadata["gkt"]["finished_by"] == "student"
    report = budget.report()
    assert (report.teacher.calls > 1, report.student.calls) == (True, 1)
    assert report.teacher.known_cost > 0


async def test_a_spent_budget() -> None:
    spent = Budget(usd="0.000001")
    agent = create_agent(
        ToolTeacher(), [add], middleware=[BudgetMiddleware(spent, teacher_price=PRICE)]
    )
    with pytest.raises(BudgetExceeded, match=r"Budget\.usd"):
        await agent.ainvoke(SUM)
    ending = BudgetMiddleware(spent, teacher_price=PRICE, exit_behavior="end")
    state = create_agent(ToolTeacher(), [add], middleware=[ending]).invoke(SUM)
    last = state["messages"][-1]
    assert last.text == "I have to stop here, because the budget is spent."
    assert "Budget.usd=0.000001 could be passed" in last.response_metadata["budget_exceeded"]
    assert ending.report().teacher.calls == 0
    past = [BudgetMiddleware(spent, teacher_price=PRICE), ModelFallbackMiddleware(ToolTeacher())]
    with pytest.warns(UserWarning, match="behind the middleware"):
        create_agent(ToolTeacher(), [add], middleware=past).invoke(SUM)


def short_answers() -> GuidedKnowledgeTransferChain:
    """A model with a limit: without one, very long answers would be reserved."""
    model = ToolTeacher()
    return GuidedKnowledgeTransferChain(teacher=model, student=model, mode="teacher", max_tokens=60)


def spent_in(agent, config) -> dict:
    return agent.get_state(config).values["budget_of_thread"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_thread_has_a_budget_of_its_own_that_outlives_the_process(asynchronous) -> None:
    async def ask(agent, config) -> str:
        asked = agent.ainvoke(SUM, config) if asynchronous else None
        state = await asked if asked else agent.invoke(SUM, config)
        return state["messages"][-1].text

    def make(saver):
        limit = Budget(tokens=8 * tokens_of_a_run)
        keeper = BudgetMiddleware(per_thread=limit, exit_behavior="end", end_message="Enough.")
        return create_agent(short_answers(), [add], middleware=[keeper], checkpointer=saver)

    whole = BudgetMiddleware(Budget(tokens=10**6))
    create_agent(short_answers(), [add], middleware=[whole]).invoke(SUM)
    tokens_of_a_run = whole.report().budget["spent_tokens"]
    saver = InMemorySaver()
    first, second = ({"configurable": {"thread_id": name}} for name in "ab")
    agent = make(saver)
    assert (await ask(agent, first)).endswith("7.")
    assert spent_in(agent, first) == {"spent_usd": "0", "spent_tokens": tokens_of_a_run}
    restarted = make(saver)  # another process
    answers = [await ask(restarted, first) for _ in range(6)]
    assert answers[0].endswith("7.") and answers[-1] == "Enough."
    assert tokens_of_a_run < spent_in(restarted, first)["spent_tokens"] <= 8 * tokens_of_a_run
    assert (await ask(restarted, second)).endswith("7.")
    assert "budget_of_thread" not in restarted.invoke(SUM, second)


def test_a_run_has_a_budget_of_its_own() -> None:
    keeper = BudgetMiddleware(per_run=Budget(tokens=200), exit_behavior="end")
    agent = create_agent(short_answers(), [add], middleware=[keeper], checkpointer=InMemorySaver())
    for number in range(6):  # each begins with nothing spent
        state = agent.invoke(SUM, {"configurable": {"thread_id": number}})
        assert state["messages"][-1].text.endswith("7.")
    spent = keeper.report().teacher
    assert spent.prompt_tokens + spent.completion_tokens > 200
    small = BudgetMiddleware(per_run=Budget(tokens=3), exit_behavior="end")
    state = create_agent(short_answers(), [add], middleware=[small]).invoke(SUM)
    assert state["messages"][-1].text == "I have to stop here, because the budget is spent."


def test_wrong_fields_are_refused(student) -> None:
    with pytest.raises(TypeError, match="did you mean 'guidance_tokens'"):
        GuidanceMiddleware(student=student, guidance_token=6)
    with pytest.raises(TypeError, match="no teacher"):
        GuidanceMiddleware(student=student, teacher=WordTeacher())
    with pytest.raises(TypeError, match="Budget"):
        BudgetMiddleware("5")
    with pytest.raises(TypeError, match="per_thread must be a Budget"):
        BudgetMiddleware(per_thread="5")
    with pytest.raises(ValueError, match="limits nothing; give budget="):
        BudgetMiddleware()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_summaries_go_by_the_profile_of_the_pair(student, asynchronous) -> None:
    # The student holds more than the teacher: the smaller context counts.
    teacher = ToolTeacher(profile={"max_input_tokens": 400, "tool_calling": True})
    pair = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=6)
    assert (pair.profile["max_input_tokens"], pair.profile["tool_calling"]) == (400, True)
    summing = SummarizationMiddleware(pair, trigger=("fraction", 0.5), keep=("messages", 1))
    agent = create_agent(pair, [add], middleware=[summing])
    short = {"messages": [("human", "Hello you"), ("ai", "Well"), ("human", "please add 3 and 4")]}
    long = {"messages": [("human", "Hello you " * 100), *short["messages"][1:]]}
    for given, first in ((short, "Hello you"), (long, "Here is a summary")):
        state = await agent.ainvoke(given) if asynchronous else agent.invoke(given)
        assert state["messages"][0].text.startswith(first)
        assert state["messages"][-1].text.endswith("the answer to this is: 7.")


def test_the_calls_may_be_billed_as_a_tier() -> None:
    price = Price(input_mtok="1", output_mtok="2", tiers={"flex": "0.5"})
    limit = Budget(usd="1")
    whole, flex = (
        BudgetMiddleware(limit, per_run=limit, teacher_price=price, tier=tier)
        for tier in (None, "flex")
    )
    for keeper in (whole, flex):
        create_agent(ToolTeacher(), [add], middleware=[keeper]).invoke(SUM)
    assert flex.report().teacher.known_cost == whole.report().teacher.known_cost / 2 > 0


class FailsOnce(ToolTeacher):
    """Fails at first, when it may have been billed."""

    def _generate(self, *args, **kwargs):
        if not failed:
            failed.append(1)
            raise TimeoutError("no answer in time")
        return super()._generate(*args, **kwargs)


failed: list[int] = []


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("again", [ModelRetryMiddleware(initial_delay=0), "fallback"])
async def test_attempts_in_front_of_a_budget_are_in_the_sum_of_the_thread(
    again, asynchronous
) -> None:
    failed.clear()
    model = FailsOnce()
    chain = GuidedKnowledgeTransferChain(teacher=model, student=model, mode="teacher")
    retries = ModelFallbackMiddleware(chain) if again == "fallback" else again
    keeper = BudgetMiddleware(Budget(tokens=10**6), per_thread=Budget(tokens=10**6))
    agent = create_agent(chain, [add], middleware=[retries, keeper], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "a"}}
    state = await agent.ainvoke(SUM, config) if asynchronous else agent.invoke(SUM, config)
    assert state["messages"][-1].text.endswith("7.")
    report = keeper.report()
    assert report.teacher.failed_calls == 1
    assert spent_in(agent, config)["spent_tokens"] == report.budget["spent_tokens"]
