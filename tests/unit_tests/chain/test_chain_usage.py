"""What adds up the usage of all runs counts each token once; the answer's own describes it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage
from langchain_core.tracers import LangChainTracer
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import make
from support.models.saying import Adding, Saying
from support.traces import FakeClient, make_tracer


@pytest.fixture
def traced() -> tuple[FakeClient, LangChainTracer]:
    return make_tracer()


def paid(*answers: Any) -> tuple[int, int]:
    both = [
        usage
        for one in answers
        for usage in (
            one.response_metadata["gkt"]["teacher_usage"],
            one.response_metadata["gkt"]["student_usage"],
        )
        if usage
    ]
    return sum(u["input_tokens"] for u in both), sum(u["output_tokens"] for u in both)


@pytest.mark.parametrize("mode", ["guided", "teacher", "student"])
@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_a_tracer_hands_on_each_token_once(
    how, mode, teacher, student, problem, traced
) -> None:
    client, tracer = traced
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3, mode=mode)
    with get_usage_metadata_callback() as counted:
        message = await answer(chain, how, problem.question, {"callbacks": [tracer]})
    assert client.total() == paid(message)
    assert sum(client.total()) > 0
    assert len(client.usage()) == {"guided": 3, "teacher": 2, "student": 2}[mode]
    own = client.usage()["GuidedKnowledgeTransferChain"]
    assert own == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    # LangChain's own counter takes runs that name their model; this teacher's does not.
    assert counted.usage_metadata.get("langchain-gkt", own) == own
    assert len(counted.usage_metadata) == (1 if mode == "teacher" else 2)


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_a_cached_answer_counts_nothing(how, teacher, student, problem, traced) -> None:
    client, tracer = traced
    chain = make(teacher, student, guidance_tokens=9, cache=InMemoryCache())
    first = await chain.ainvoke(problem.question, {"callbacks": [tracer]})
    again = await answer(chain, how, problem.question, {"callbacks": [tracer]})
    asked_again = "stream" in how  # LangChain caches no stream
    assert client.total() == paid(first, *([again] if asked_again else []))


def test_what_hears_no_models_of_a_structured_answer_is_told_their_sum(
    teacher, student, problem, traced
) -> None:
    client, tracer = traced
    chain = make(teacher, student, guidance_tokens=9)
    for ask in (chain.invoke, lambda *args, **kw: list(chain.stream(*args, **kw))):
        client.runs.clear()
        heard = UsageMetadataCallbackHandler()
        with get_usage_metadata_callback() as counted:  # LangChain gives it to every run
            ask(problem.question, {"callbacks": [heard, tracer]}, hide_child_runs=True)
        assert len(client.usage()) == 3
        (told,) = heard.usage_metadata.values()
        assert (told["input_tokens"], told["output_tokens"]) == client.total()
        assert counted.usage_metadata["langchain-gkt"]["total_tokens"] == 0


@pytest.mark.parametrize("how", [one for one in ENTRY_POINTS if one != "astream_events"])
async def test_the_usage_of_an_answer_describes_it(how, teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    message = await answer(chain, how, problem.question)
    student_usage = message.response_metadata["gkt"]["student_usage"]
    alone = await answer(chain, how, problem.question, mode="student")
    usage = message.usage_metadata
    # The teacher counts characters here; of its tokens those that were cut away are left out.
    kept = len(message.response_metadata["gkt"]["guidance"])
    assert usage["output_tokens"] == student_usage["output_tokens"] + kept
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["total_tokens"] == student_usage["total_tokens"]  # what a next turn would hold
    assert alone.usage_metadata == alone.response_metadata["gkt"]["student_usage"]
    taught = await answer(chain, how, problem.question, mode="teacher")
    assert taught.usage_metadata == taught.response_metadata["gkt"]["teacher_usage"]


@pytest.mark.parametrize("how", [one for one in ENTRY_POINTS if one != "astream_events"])
@pytest.mark.parametrize(
    ("says", "fields"),
    [
        ("OK", {"mode": "verified"}),
        ("1: Two and two.", {"mode": "verified"}),
        ("Who knows?", {"mode": "verified"}),
        ("", {"on_teacher_error": "student"}),  # paid for, and nothing to go on from
    ],
)
async def test_a_prompt_that_gave_no_guidance_is_measured_too(how, says, fields) -> None:
    usage: Any = {"input_tokens": 3_500, "output_tokens": 4, "total_tokens": 3_504}
    said = AIMessage(says, usage_metadata=usage, response_metadata={"finish_reason": "stop"})
    chain = make(Saying(says=lambda limit: said), Adding(), **fields)
    message = await answer(chain, how, "q")
    assert message.response_metadata["gkt"]["finished_by"] == "student"
    counts = message.usage_metadata
    assert counts["input_tokens"] == 3_500  # the student's own has 7
    assert counts["total_tokens"] == 3_500 + counts["output_tokens"]
