"""The tracker's figures against the ledger of a server that bills."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from support.runs import left_open
from support.servers.billing_server import BillingServer, Plan
from support.traces import make_tracer

from langchain_gkt import (
    Budget,
    BudgetExceeded,
    CostTracker,
    GuidedKnowledgeTransferChain,
    Price,
    TeacherError,
    track_costs,
)

PRICE = Price("2", "10", "0.5", source="list", as_of="2026-01-01")
QUESTION = "Six apples and four more, two are eaten. How many apples are left?"


@pytest.fixture(scope="module")
def server() -> Iterator[BillingServer]:
    with BillingServer() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(server) -> None:
    server.reset()


def openai(server, **kwargs) -> ChatOpenAI:
    settings = {"model": "big-1", "max_retries": 0, "stream_usage": True, "timeout": 10}
    return ChatOpenAI(base_url=server.base_url, api_key="local", **{**settings, **kwargs})


def make_chain(teacher, student, **kwargs) -> GuidedKnowledgeTransferChain:
    settings = {"guidance_tokens": 6, "max_tokens": 12}
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **{**settings, **kwargs})


def counted(costs: CostTracker) -> tuple[int, int, int, int]:
    data = costs.report().to_dict()["teacher"]
    names = ("prompt_tokens", "cached_prompt_tokens", "completion_tokens", "reasoning_tokens")
    return tuple(data[name] for name in names)


async def run(chain, how: str, *callbacks) -> None:
    chain = chain.with_config(callbacks=list(callbacks)) if callbacks else chain
    if how == "invoke":
        chain.invoke(QUESTION)
    elif how == "ainvoke":
        await chain.ainvoke(QUESTION)
    elif how == "stream":
        list(chain.stream(QUESTION))
    elif how == "astream":
        [_ async for _ in chain.astream(QUESTION)]
    elif how == "batch":
        chain.batch([QUESTION, QUESTION + "?", QUESTION])
    elif how == "abatch":
        await chain.abatch([QUESTION, QUESTION + "?", QUESTION])
    else:
        [_ async for _ in chain.astream_events(QUESTION, version="v2")]


DOORS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "astream_events")


@pytest.mark.parametrize("mode", ["guided", "teacher"])
@pytest.mark.parametrize("how", DOORS)
async def test_every_door_equals_the_ledger(server, student, how, mode) -> None:
    chain = make_chain(openai(server), student, mode=mode)
    server.reset(always=Plan(cached=5, reasoning=2))
    client, tracer = make_tracer()
    with track_costs(teacher_price=PRICE) as costs, get_usage_metadata_callback() as counted_too:
        await run(chain, how, tracer)
    asked = 3 if "batch" in how else 1
    data = costs.report().to_dict()["teacher"]
    server.settle()  # it bills a stream when it is through with it, which the client cannot see
    assert len(server.ledger) == asked == data["calls"]
    assert counted(costs) == server.sums()
    assert data["unreported"]["calls"] == 0
    prompt, cached, completion, _ = server.sums()
    paid = (prompt - cached) * 2 + cached * Decimal("0.5") + completion * 10
    assert Decimal(data["cost"]) == paid / 1_000_000
    assert not left_open(costs)
    total = costs.report().to_dict()["total"]
    assert client.total() == (total["prompt_tokens"], total["completion_tokens"])
    assert client.dollars()["total_cost"] == pytest.approx(float(total["cost"]), rel=1e-12)
    assert client.dollars()["output_cost"] == pytest.approx(float(total["completion_cost"]))
    every = counted_too.usage_metadata.values()  # fails on any cost among the counts
    assert sum(one["total_tokens"] for one in every) == sum(client.total())


async def test_an_agent_and_structured_output(server) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    class Sum(BaseModel):
        """A result."""

        value: int

    # Whatever runs with the role in its metadata is counted, inside a chain or not.
    config = {"metadata": {"gkt_role": "teacher", "gkt_call_id": "mine", "gkt_mode": "teacher"}}
    agent = create_agent(openai(server), [add])
    shaped = openai(server).with_structured_output(Sum)
    with track_costs(teacher_price=PRICE) as costs:
        agent.invoke({"messages": [("user", QUESTION)]}, config)
        assert counted(costs) == server.sums()
        assert len(server.ledger) == 2
        async for _ in agent.astream_events({"messages": [("user", QUESTION)]}, config):
            pass
        assert shaped.invoke(QUESTION, config) == Sum(value=8)
        assert await shaped.ainvoke(QUESTION, config) == Sum(value=8)
    assert len(server.ledger) == 6 == costs.report().teacher.calls
    assert counted(costs) == server.sums()


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_retry_after_an_http_error_costs_once(server, student, how) -> None:
    # langchain-core retries no streams, so the teacher must be one that is not streamed.
    teacher = openai(server, stream_usage=None)
    teacher = teacher.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    server.reset(Plan(fail=500), Plan(fail=429))
    with track_costs(teacher_price=PRICE) as costs:
        await run(make_chain(teacher, student), how)
    data = costs.report().to_dict()["teacher"]
    assert (data["calls"], data["failed_calls"], data["retries"]) == (3, 2, 2)
    assert counted(costs) == server.sums()
    assert data["unreported"]["calls"] == 0
    assert data["cost"] is not None
    assert costs.report().estimate.calls == 1
    assert not left_open(costs)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_dropped_connection_is_unreported_and_estimated(server, student, how) -> None:
    teacher = openai(server, stream_usage=None)
    teacher = teacher.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    chain = make_chain(teacher, student)
    with track_costs(teacher_price=PRICE) as costs:
        await run(chain, how)  # the tracker learns this model's tokens
        server.plans.append(Plan(fail="drop"))
        await run(chain, how)
    data = costs.report().to_dict()["teacher"]
    assert len(server.ledger) == 3 == data["calls"]
    assert counted(costs) == server.sums(told=True)
    missing, lost = data["unreported"], server.sums(told=False)
    assert missing["calls"] == 1
    assert missing["prompt_tokens"] == lost[0]
    assert lost[2] == missing["completion_tokens"] == missing["most_completion_tokens"]
    assert data["cost"] is None
    assert Decimal(missing["cost"]) > 0
    text = str(costs.report())
    assert "unreported (estimated)" in text
    assert "1 call(s) reported no usage" in text


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("wrapped", ["retry", "fallback"])
async def test_a_budget_holds_for_every_attempt(server, student, wrapped, how, timeout) -> None:
    teacher = openai(server, stream_usage=True if wrapped == "fallback" else None)
    if wrapped == "retry":
        teacher = teacher.with_retry(stop_after_attempt=9, wait_exponential_jitter=False)
    else:
        teacher = teacher.with_fallbacks([openai(server) for _ in range(8)])
    server.reset(always=Plan(fail="drop"))
    chain = make_chain(teacher, student, timeout=timeout)
    with track_costs(budget=Budget(tokens=120)) as costs, pytest.raises(BudgetExceeded):
        await run(chain, how)
    server.settle()
    billed = server.sums()
    assert 2 <= len(server.ledger) < 9
    assert billed[0] + billed[2] <= 120
    data = costs.report().to_dict()
    assert data["teacher"]["calls"] == len(server.ledger) == data["teacher"]["unreported"]["calls"]
    assert billed[0] + billed[2] <= data["budget"]["spent_tokens"] <= 120
    assert (data["budget"]["refused_calls"], data["budget"]["reserved_tokens"]) == (1, 0)
    assert not left_open(costs)


def test_the_student_goes_on_when_no_further_attempt_is_paid_for(server, student) -> None:
    teacher = openai(server, stream_usage=None)
    teacher = teacher.with_retry(stop_after_attempt=9, wait_exponential_jitter=False)
    chain = make_chain(teacher, student)
    server.reset(always=Plan(fail="drop"))
    with track_costs(budget=Budget(tokens=120, on_exceeded="student")):
        message = chain.invoke(QUESTION)
    assert message.response_metadata["gkt"]["fallback"].startswith("BudgetExceeded")
    assert message.text


def test_retries_inside_the_client_are_named_as_unseen(server, student) -> None:
    chain = make_chain(openai(server, max_retries=2), student)
    server.reset(Plan(fail="drop"))
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(QUESTION)
    assert len(server.ledger) == 2
    assert counted(costs) == server.sums(told=True)
    assert "not seen: retries inside the client of big-1" in str(costs.report())


async def test_a_fallback_is_counted_and_priced_as_itself(server, student) -> None:
    teacher = openai(server).with_fallbacks([openai(server, model="small-1")])
    server.reset(Plan(fail=503))
    prices = {"big-1": Price(100, 100), "small-1": Price(1, 1)}
    with track_costs(teacher_price=prices) as costs:
        make_chain(teacher, student).invoke(QUESTION)
    data = costs.report().to_dict()["teacher"]
    assert counted(costs) == server.sums()
    assert data["models"]["big-1"]["failed_calls"] == 1
    small = data["models"]["small-1"]
    tokens = small["prompt_tokens"] + small["completion_tokens"]
    assert Decimal(data["cost"]) == Decimal(tokens) / 1_000_000
    assert "  small-1" in str(costs.report())


def test_an_answer_from_the_cache_is_not_billed(server, student) -> None:
    chain = make_chain(openai(server, cache=InMemoryCache()), student)
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(QUESTION)
        chain.invoke(QUESTION)
    assert len(server.ledger) == 1
    assert counted(costs) == server.sums()
    assert costs.report().teacher.cache_hits == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_closed_early_is_unreported(server, student, asynchronous) -> None:
    chain = make_chain(openai(server), student, mode="teacher", max_tokens=16)
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(QUESTION)
        server.plans.append(Plan(pause=0.02))
        if asynchronous:
            stream = chain.astream(QUESTION)
            [await anext(stream) for _ in range(6)]
            await stream.aclose()
        else:
            stream = chain.stream(QUESTION)
            [next(stream) for _ in range(6)]
            stream.close()
    data = costs.report().to_dict()["teacher"]
    assert counted(costs) == server.sums(told=True)
    missing, lost = data["unreported"], server.sums(told=False)
    assert (data["failed_calls"], missing["calls"]) == (0, 1)
    assert missing["prompt_tokens"] == lost[0]
    assert 0 < missing["completion_tokens"] <= lost[2] <= missing["most_completion_tokens"]
    assert not left_open(costs)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_cut_by_the_server_is_unreported(server, student, asynchronous) -> None:
    chain = make_chain(openai(server), student, mode="teacher", max_tokens=16)
    with track_costs(teacher_price=PRICE) as costs:
        chain.invoke(QUESTION)
        server.plans.append(Plan(fail="cut"))
        with pytest.raises(TeacherError):
            await run(chain, "astream" if asynchronous else "stream")
    data = costs.report().to_dict()["teacher"]
    assert counted(costs) == server.sums(told=True)
    missing, lost = data["unreported"], server.sums(told=False)
    assert (data["failed_calls"], missing["calls"]) == (1, 1)
    assert missing["prompt_tokens"] == lost[0]
    assert 0 < missing["completion_tokens"] <= lost[2] <= missing["most_completion_tokens"]
    assert not left_open(costs)


async def test_a_cancelled_call_is_counted_when_its_task_ends(server, student) -> None:
    chain = make_chain(openai(server), student)
    server.reset(always=Plan(fail="drop"))
    slow = make_chain(openai(server).with_retry(stop_after_attempt=9), student)
    with track_costs(teacher_price=PRICE) as costs:
        task = asyncio.create_task(slow.ainvoke(QUESTION))
        while not server.ledger:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        server.reset()
        await chain.ainvoke(QUESTION)
        server.always = Plan(pause=0.1)
        for _ in range(2):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(chain.ainvoke(QUESTION), 0.02)
    report = costs.report()
    assert report.running == 0
    teacher = report.teacher
    assert teacher.unreported_calls >= 3
    assert teacher.calls == teacher.unreported_calls + 1 >= len(server.ledger)
    billed = server.sums()
    lost = teacher.unreported_prompt_tokens
    assert teacher.prompt_tokens + lost >= billed[0]
    assert teacher.completion_tokens + teacher.unreported_completion_tokens >= billed[2]
    assert not left_open(costs)


@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize("tier", ["flex", "priority"])
async def test_service_tiers_hide_no_tokens_and_have_their_price(
    server, student, tier, how
) -> None:
    teacher = openai(server, model="gpt-5")
    server.reset(always=Plan(tier=tier, cached=7, reasoning=3))
    with track_costs(teacher_price="openai:gpt-5") as costs:
        await run(make_chain(teacher, student), how)
    assert counted(costs) == server.sums()
    prompt, cached, completion, _ = server.sums()
    rates = {"flex": ("0.625", "0.0625", "5"), "priority": ("2.5", "0.25", "20")}[tier]
    plain, read, out = map(Decimal, rates)
    paid = (prompt - cached) * plain + cached * read + completion * out
    data = costs.report().to_dict()["teacher"]
    assert Decimal(data["cost"]) == paid / 1_000_000
    assert f"tier {tier}" in data["price_source"]


@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_a_provider_that_reports_nothing(server, student, how) -> None:
    chain = make_chain(openai(server), student)
    server.reset(always=Plan(usage=False))
    with track_costs(teacher_price=PRICE) as costs:
        await run(chain, how)
    data = costs.report().to_dict()["teacher"]
    assert data["unreported"]["calls"] == 1
    assert (data["prompt_tokens"], data["cost"]) == (0, None)
    billed = server.sums()
    assert data["unreported"]["completion_tokens"] == pytest.approx(billed[2], abs=1)
    assert data["unreported"]["prompt_tokens"] > 0


def test_no_address_of_a_provider_is_said_in_the_price(server, student) -> None:
    chain = make_chain(openai(server, model="gpt-4o-mini"), student)
    with track_costs() as costs:
        chain.invoke(QUESTION)
    (source,) = costs.report().teacher.sources
    assert "by provider id" in source
    assert "is no address it knows" in source


def test_a_teacher_that_was_never_reached_costs_nothing(student) -> None:
    teacher = ChatOpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", model="m", max_retries=0)
    with track_costs(teacher_price=PRICE) as costs, pytest.raises(TeacherError):
        make_chain(teacher, student).invoke(QUESTION)
    data = costs.report().to_dict()["teacher"]
    assert (data["failed_calls"], data["unreported"]["calls"], data["cost"]) == (1, 0, "0")
    assert not left_open(costs)
