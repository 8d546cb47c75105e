"""The models' runs are children of the chain's run, at every entry point."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import Recorder, WordTeacher, limit_inside, make
from support.traces import make_tracer


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_both_models_run_under_the_chain(how, teacher, whole_student, problem) -> None:
    chain = make(
        teacher, whole_student, guidance_tokens=limit_inside(problem.plan, problem.solution)
    )
    recorder = Recorder()
    config = {"callbacks": [recorder], "tags": ["mine"], "metadata": {"user": "x"}}
    assert (await answer(chain, how, problem.question, config)).text == problem.solution
    assert len(recorder.runs) == 3
    (own,), (taught,), (learned,) = map(recorder.by_role, (None, "teacher", "student"))
    for child, role in ((taught, "teacher"), (learned, "student")):
        assert child["parent"] == own["id"]
        assert child["name"] == role
        assert {"nostream", f"gkt:{role}", "mine"} <= set(child["tags"])
        assert child["metadata"]["user"] == "x"
        assert child["metadata"]["ls_model_name" if role == "student" else "gkt_mode"]
        assert child["end"] == "ok"
    assert taught["metadata"]["gkt_call_id"] == learned["metadata"]["gkt_call_id"]
    assert taught["usage"]["output_tokens"] == chain.guidance_tokens
    assert learned["usage"]["output_tokens"] > 0
    assert own["usage"]["output_tokens"] == 0  # sums over all runs count nothing twice
    assert recorder.ended[-1] == own["id"]


@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_closing_a_stream_ends_every_run(how, teacher, student, problem) -> None:
    chain, recorder = make(teacher, student, guidance_tokens=30), Recorder()
    config = {"callbacks": [recorder]}
    if how == "stream":
        stream = chain.stream(problem.question, config)
        next(stream), next(stream)
        stream.close()
    else:
        astream = chain.astream(problem.question, config)
        await anext(astream), await anext(astream)
        await astream.aclose()
    assert [run["end"] for run in recorder.runs.values()] == [
        "GeneratorExit",
        "ok",
        "GeneratorExit",
    ]


async def test_nested_in_another_runnable_the_chain_keeps_its_parent(
    teacher, student, problem
) -> None:
    chain, recorder = make(teacher, student), Recorder()
    outer = RunnableLambda(lambda q, config: "".join(c.text for c in chain.stream(q, config)))
    outer.invoke(problem.question, {"callbacks": [recorder]})
    (own,) = recorder.by_role(None)
    assert own["parent"] is not None
    assert {r["parent"] for r in recorder.runs.values()} == {own["parent"], own["id"]}


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_wrapped_teacher_inside_another_runnable_is_traced_once(
    how, teacher, student, problem
) -> None:
    client, tracer = make_tracer()
    bound = teacher.bind(stop=["never"]).with_retry(stop_after_attempt=2)
    chain = make(bound, student, guidance_tokens=9)

    async def ask(question: str, config: RunnableConfig) -> Any:
        return await answer(chain, how, question, config)

    await RunnableLambda(ask).ainvoke(problem.question, {"callbacks": [tracer]})
    runs = ["ask", "GuidedKnowledgeTransferChain", "teacher", "WordTeacher", "student"]
    assert sorted(client.created) == sorted(runs)
    assert {run["name"] for run in client.runs.values() if run.get("outputs")} == set(runs)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_events_of_version_three_nest_and_are_configured(
    teacher, whole_student, problem
) -> None:
    shorter = WordTeacher(answer="Short.", asked=[])
    either = teacher.configurable_alternatives(ConfigurableField(id="who"), short=shorter)
    chain, recorder = make(either, whole_student, guidance_tokens=len(problem.plan) + 3), Recorder()
    config = {"configurable": {"who": "short"}, "callbacks": [recorder]}
    assert "".join(chain.stream_events(problem.question, config, version="v3").text) == "Short."
    (own,), (taught,) = recorder.by_role(None), recorder.by_role("teacher")
    assert taught["parent"] == own["id"]
    stream = await chain.astream_events(problem.question, version="v3")
    assert "".join([text async for text in stream.text]) == problem.solution
