"""Sweeps and comparisons over HTTP: what an OpenAI-compatible provider tells, and is asked."""

from __future__ import annotations

from typing import Any

import httpx
from langchain_core.messages import convert_to_messages
from langchain_openai import ChatOpenAI
from support.models.exam import Knowing, Needy, task
from support.models.fakes import MODELS
from support.servers.completions_server import completions_server
from transformers import AutoTokenizer

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.evaluation import compare, load_task, sweep
from langchain_gkt.gates import ConfidenceGate


class Provider:
    """Puts `Knowing` behind the chat completions API, and keeps the requests."""

    def __init__(self, *, tells_tokens: bool = True) -> None:
        self.tells_tokens = tells_tokens
        self.requests: list[dict[str, Any]] = []

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(body)
        if body.get("logprobs") and not self.tells_tokens:
            raise ValueError("logprobs are not supported")
        knowing = Knowing(
            max_tokens=body.get("max_completion_tokens"), logprobs=body.get("logprobs")
        )
        message = knowing.invoke(convert_to_messages(body["messages"]))
        used = message.usage_metadata
        return {
            "message": {"role": "assistant", "content": message.text},
            "finish_reason": message.response_metadata["finish_reason"],
            "logprobs": message.response_metadata.get("logprobs"),
            "usage": {
                "prompt_tokens": used["input_tokens"],
                "completion_tokens": used["output_tokens"],
                "total_tokens": used["total_tokens"],
            },
        }


def client(url: str, model: str, **fields) -> ChatOpenAI:
    # A connection kept open would outlive its event loop and warn when it is collected.
    no_keepalive = httpx.Limits(max_keepalive_connections=0)
    asynchronous = httpx.AsyncClient(limits=no_keepalive)
    return ChatOpenAI(
        base_url=url, api_key="k", model=model, http_async_client=asynchronous, **fields
    )


def chain(url: str, **fields) -> GuidedKnowledgeTransferChain:
    teacher = client(url, "m", stream_usage=True, max_retries=0)
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=Needy(), **{"guidance_tokens": 6, "temperature": 0, **fields}
    )


def test_a_provider_that_tells_its_tokens_is_cut_exactly() -> None:
    provider = Provider()
    with completions_server(provider) as url:
        found = sweep(chain(url), task(5), lengths=[2, 6, 12], check_lengths=(2, 6, 12))
        assert dict(found.methods) == {"logprobs": 5}
        assert "15 of 15 guidances" in str(found)
        assert len(provider.requests) == 5 + 15
        real = compare(chain(url), task(5), modes=["guided"])
    cut = [answer for answer in found.answers if answer.length == 6]
    assert [a.text for a in cut] == [a.text for a in real.answers]
    assert [a.guidance for a in cut] == [a.guidance for a in real.answers]
    assert not any(body.get("logprobs") for body in provider.requests[20:])


def test_a_provider_that_refuses_to_is_asked_without() -> None:
    provider = Provider(tells_tokens=False)
    with completions_server(provider) as url:
        found = sweep(chain(url), task(5), lengths=[6])
    assert dict(found.methods) == {"approximate": 5}
    assert len(provider.requests) == 6  # the refused one costs nothing


def test_cut_is_what_asking_gives_on_real_models(cloud, student) -> None:
    teacher = client(cloud.base_url, cloud.name, temperature=0)
    questions = load_task("word_problems", rows=4, seed=3)
    pair = GuidedKnowledgeTransferChain(teacher=teacher, student=student)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "teacher")
    found = sweep(pair, questions, lengths=[6, 18], teacher_tokenizer=tokenizer)
    for length in (6, 18):
        asking = pair.model_copy(update={"guidance_tokens": length})
        real = compare(asking, questions, modes=["guided"])
        cut = [answer for answer in found.answers if answer.length == length]
        assert [(a.guidance, a.text) for a in cut] == [(a.guidance, a.text) for a in real.answers]
        tokens = [[a.teacher.completion_tokens for a in one] for one in (cut, real.answers)]
        assert tokens[0] == tokens[1]


def test_a_gate_does_in_a_chain_what_the_sweep_said(cloud) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    teacher = client(cloud.base_url, cloud.name, temperature=0)
    questions = load_task("word_problems", rows=12, seed=9)
    pair = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=18)
    found = sweep(
        pair,
        questions,
        lengths=[18],
        concurrency=40,  # a batch costs little more than one
        teacher_tokenizer=AutoTokenizer.from_pretrained(MODELS / "teacher"),
    )
    # In the middle of a gap, because batches move probabilities in their last bits.
    any_gate = ConfidenceGate(below=1, probe_tokens=16)
    known = sorted(-score for score in found.outcomes.scores(any_gate))
    gap = max(range(3, 9), key=lambda i: known[i + 1] - known[i])
    ask = (known[gap] + known[gap + 1]) / 2
    point = found.outcomes.point(18, ConfidenceGate(below=ask, probe_tokens=16))
    gate = GuidancePolicy(ask=ask, probe_tokens=16)
    gated = pair.model_copy(update={"guidance": gate})
    real = compare(gated, questions, modes=["guided"], concurrency=12)
    summary = real.summaries["guided"]
    assert (summary.asked, summary.accuracy) == (point.asked, point.accuracy)
    assert summary.asked == (gap + 1) / 12
