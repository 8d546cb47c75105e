"""A LangSmith tracer is told each dollar once: on the models' runs, as the cost tracker reports."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.tracers import LangChainTracer
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import Recorder, make
from support.traces import FakeClient, make_tracer

from langchain_gkt import CostTracker, Price, track_costs
from langchain_gkt.costs import Budget, MachineTime

TEACHER, STUDENT = Price("2", "10"), Price("0.3", "0.7")
COSTS = {"input_cost", "output_cost", "total_cost"}


@pytest.fixture
def traced() -> tuple[FakeClient, LangChainTracer]:
    return make_tracer()


def assert_equal(client: FakeClient, costs: CostTracker) -> None:
    """The tracer was told the tokens and the dollars of the report."""
    total = costs.report().to_dict()["total"]
    assert client.total() == (total["prompt_tokens"], total["completion_tokens"])
    told = client.dollars()
    assert told["total_cost"] == pytest.approx(float(total["known_cost"]), rel=1e-12)
    assert told["input_cost"] + told["output_cost"] == pytest.approx(told["total_cost"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["guided", "teacher", "student"])
@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_each_dollar_once(how, mode, teacher, student, problem, traced) -> None:
    client, tracer = traced
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3, mode=mode)
    recorder = Recorder()
    with (
        track_costs(teacher_price=TEACHER, student_price=STUDENT) as costs,
        get_usage_metadata_callback() as counted,
    ):
        for _ in range(2):
            config = {"callbacks": [recorder, tracer]}
            message = await answer(chain, how, problem.question, config)
    assert costs.report().total.known_cost > 0
    assert_equal(client, costs)
    for name, used in client.told():
        assert COSTS & used.keys() == (COSTS if name in ("teacher", "student") else set())
    assert not COSTS & message.usage_metadata.keys()
    # Others hear whole numbers only: langchain-core's sums fail on others.
    assert not any(COSTS & run["usage"].keys() for run in recorder.runs.values())
    assert not any(COSTS & used.keys() for used in counted.usage_metadata.values())
    assert counted.usage_metadata.keys() >= ({"langchain-gkt"} - {mode})


@pytest.mark.slow
@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_answers_from_a_cache_cost_nothing(how, teacher, student, problem, traced) -> None:
    client, tracer = traced
    own = teacher.model_copy(update={"cache": InMemoryCache()})
    for chain in (
        make(teacher, student, guidance_tokens=9, cache=InMemoryCache()),
        make(own, student, guidance_tokens=9),  # the teacher's replies alone are cached
    ):
        client.runs.clear()
        with (
            track_costs(teacher_price=TEACHER, student_price=STUDENT) as costs,
            get_usage_metadata_callback() as counted,
        ):
            await chain.ainvoke(problem.question, {"callbacks": [tracer]})
            await answer(chain, how, problem.question, {"callbacks": [tracer]})
        assert_equal(client, costs)
        by_student = costs.report().student.to_dict()
        heard = counted.usage_metadata[str(student.display_name)]
        assert heard["input_tokens"] == by_student["prompt_tokens"]
    assert costs.report().teacher.cache_hits == 1


def test_a_model_without_a_price_carries_no_cost(teacher, student, problem, traced) -> None:
    client, tracer = traced
    with track_costs() as costs:  # nobody knows this teacher
        make(teacher, student, guidance_tokens=9).invoke(problem.question, {"callbacks": [tracer]})
    told = dict(client.told())
    assert costs.report().teacher.unpriced_calls == 1
    assert not COSTS & told["teacher"].keys()
    # The student is free, which is no answer from a cache: that has a total and nothing else.
    assert {name: told["student"][name] for name in COSTS} == dict.fromkeys(COSTS, 0.0)
    assert costs.report().student.cache_hits == 0


def test_a_price_of_zero_is_no_answer_from_the_cache() -> None:
    from langchain_gkt.metadata import from_cache

    counts = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    assert from_cache({**counts, "total_cost": 0})
    assert not from_cache(counts)
    assert not from_cache({**counts, **dict.fromkeys(COSTS, 0.0)})


def test_a_machine_by_the_hour_is_output(teacher, student, problem, traced) -> None:
    client, tracer = traced
    with track_costs(
        teacher_price=TEACHER, student_price=MachineTime(usd_per_hour="3600")
    ) as costs:
        make(teacher, student, guidance_tokens=9).invoke(problem.question, {"callbacks": [tracer]})
    assert costs.report().student.machine_cost > 0
    assert_equal(client, costs)
    assert dict(client.told())["student"]["input_cost"] == 0


@pytest.mark.parametrize("place", ["config", "chain", "budget"])
def test_the_tracker_may_listen_anywhere(place, teacher, student, problem, traced) -> None:
    client, tracer = traced
    costs = CostTracker(teacher_price=TEACHER, student_price=STUDENT)
    if place == "config":
        chain = make(teacher, student, guidance_tokens=9)
        chain.invoke(problem.question, {"callbacks": [costs, tracer]})
    elif place == "chain":
        chain = make(teacher, student, guidance_tokens=9, callbacks=[tracer, costs])
        chain.invoke(problem.question)
    else:
        budget = Budget(usd="1", teacher_price=TEACHER)
        chain = make(teacher, student, guidance_tokens=9, budget=budget)
        chain.invoke(problem.question, {"callbacks": [tracer]})
        (costs,) = chain.callbacks
    assert costs.report().teacher.known_cost > 0
    assert_equal(client, costs)


def test_the_innermost_price_is_told(teacher, student, problem, traced) -> None:
    client, tracer = traced
    chain = make(teacher, student, guidance_tokens=9)
    with track_costs(teacher_price=STUDENT) as outer, track_costs(teacher_price=TEACHER) as inner:
        chain.invoke(problem.question, {"callbacks": [tracer]})
    assert_equal(client, inner)
    assert outer.report().teacher.calls == 1
    client.runs.clear()
    with track_costs(teacher_price=TEACHER) as outer, track_costs():
        chain.invoke(problem.question, {"callbacks": [tracer]})
    assert_equal(client, outer)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_attempts_and_guidance_alone(how, teacher, student, problem, traced) -> None:
    client, tracer = traced
    config: Any = {"callbacks": [tracer]}
    retried = make(teacher.with_retry(stop_after_attempt=2), student, guidance_tokens=9)
    with track_costs(teacher_price=TEACHER, student_price=STUDENT) as costs:
        await answer(retried, how, problem.question, config)
        if how == "invoke":
            retried.guide(problem.question, config)
        else:
            await retried.aguide(problem.question, config)
    assert costs.report().teacher.calls == 2
    assert_equal(client, costs)
    assert sum("total_cost" in used for _, used in client.told()) == 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_closed_early(asynchronous, teacher, student, problem, traced) -> None:
    client, tracer = traced
    chain = make(teacher, student, guidance_tokens=30)
    with track_costs(teacher_price=TEACHER, student_price=STUDENT) as costs:
        if asynchronous:
            chunks = chain.astream(problem.question, {"callbacks": [tracer]})
            [await anext(chunks) for _ in range(3)]
            await chunks.aclose()
        else:
            stream = chain.stream(problem.question, {"callbacks": [tracer]})
            [next(stream) for _ in range(3)]
            stream.close()
    assert costs.report().total.known_cost > Decimal(0)
    assert_equal(client, costs)


def test_a_chain_that_teaches_another(teacher, student, problem, traced) -> None:
    client, tracer = traced
    inner = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    chain = make(inner, student, guidance_tokens=40)
    with track_costs(teacher_price=TEACHER, student_price=STUDENT) as costs:
        chain.invoke(problem.question, {"callbacks": [tracer]})
    assert_equal(client, costs)


def test_a_structured_answer(teacher, student, problem, traced) -> None:
    client, tracer = traced
    heard = UsageMetadataCallbackHandler()
    with track_costs(teacher_price=TEACHER, student_price=STUDENT) as costs:
        make(teacher, student, guidance_tokens=9).invoke(
            problem.question, {"callbacks": [heard, tracer]}, hide_child_runs=True
        )
    assert_equal(client, costs)
    (told,) = heard.usage_metadata.values()
    assert told["total_tokens"] == sum(client.total())
