"""What a guided call of two real models costs, by hand and as LangSmith is told."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.traces import make_tracer

from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent, Price, track_costs


def test_each_token_is_paid_once(smollm2: HuggingFaceStudent) -> None:
    client, tracer = make_tracer()
    teacher = smollm2.model_copy()
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=smollm2, guidance_tokens=12, max_tokens=40
    )
    with track_costs(teacher_price=Price("2", "10"), student_price=Price("1", "3")) as costs:
        answers = [
            chain.invoke("What is a black hole?", {"callbacks": [tracer]}),
            *chain.batch(["What causes tides?"], {"callbacks": [tracer]}),
        ]
        list(chain.stream("Name five birds.", {"callbacks": [tracer]}))
    report = costs.report().to_dict()
    assert report["teacher"]["calls"] == report["student"]["calls"] == 3
    for role, read, written in (("teacher", 2, 10), ("student", 1, 3)):
        sums = report[role]
        paid = sums["prompt_tokens"] * read + sums["completion_tokens"] * written
        assert Decimal(sums["cost"]) == Decimal(paid) / 1_000_000
    for answer in answers:
        assert answer.response_metadata["gkt"]["teacher_usage"]["output_tokens"] == 12
    total = report["total"]
    assert client.total() == (total["prompt_tokens"], total["completion_tokens"])
    assert client.dollars()["total_cost"] == pytest.approx(float(total["cost"]), rel=1e-12)
