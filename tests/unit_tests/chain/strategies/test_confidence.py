"""Whether the teacher is asked at all: the policy's `ask`, and the student's confidence."""

from __future__ import annotations

import pytest
import torch
from langchain_core.messages import HumanMessage
from support.entry_points import ENTRY_POINTS, answer
from support.models.exam import pair, solution
from support.models.fakes import WordTeacher

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, track_costs
from langchain_gkt.gates.confidence import confidence

EVEN, ODD = "What is one more than 10?", "What is one more than 11?"
GATE = GuidancePolicy(ask=0.5, probe_tokens=8)


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_a_sure_student_is_not_helped(how) -> None:
    asked = []
    message = await answer(pair(teacher={"diary": asked}, guidance=GATE), how, EVEN)
    gkt = message.response_metadata["gkt"]
    assert message.text == solution(10)
    assert gkt["finished_by"] == "student"
    assert gkt["teacher_usage"] is None
    assert gkt["guidance"] == ""
    assert gkt["confidence"] == pytest.approx((0.9**2 * 0.99**6) ** (1 / 8))
    assert asked == []


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_an_unsure_student_is_helped(how) -> None:
    asked = []
    message = await answer(pair(teacher={"diary": asked}, guidance=GATE), how, ODD)
    assert message.text == solution(11)
    assert message.response_metadata["gkt"]["guidance"] == "Plan: take 11 and add "
    assert message.response_metadata["gkt"]["confidence"] < 0.5
    assert len(asked) == 1


def test_one_token_is_too_few_to_tell_here() -> None:
    chain = pair(guidance=GuidancePolicy(ask=0.5))
    gkt = chain.invoke(ODD).response_metadata["gkt"]
    assert (gkt["confidence"], gkt["finished_by"]) == (0.9, "student")


def test_never_means_never_and_the_baselines_do_not_care() -> None:
    asked = []
    chain = pair(teacher={"diary": asked}, guidance=GuidancePolicy(ask="never"))
    assert chain.invoke(ODD).text.endswith("The answer is 0.")
    assert asked == []
    assert chain.invoke(ODD, mode="teacher").text == solution(11)
    assert len(asked) == 1
    with pytest.raises(ValueError, match="ask"):
        chain.guide(ODD)
    assert (
        pair(guidance=GATE).invoke(EVEN, mode="teacher").response_metadata["gkt"]["confidence"]
        is None
    )


def test_a_call_without_the_teacher_is_counted_for_the_student_alone() -> None:
    chain = pair(guidance=GATE)
    with track_costs() as costs:
        chain.invoke(EVEN)
    data = costs.report().to_dict()
    assert (data["teacher"]["calls"], data["student"]["calls"]) == (0, 1)


def test_a_student_that_tells_nothing_is_refused_at_once(teacher) -> None:
    mute = WordTeacher(answer="x")
    with pytest.raises(ValueError, match=r"guidance\.ask=0\.5 .* WordTeacher does not report"):
        GuidedKnowledgeTransferChain(
            teacher=teacher, student=mute, guidance=GuidancePolicy(ask=0.5)
        )
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=mute)
    with pytest.raises(ValueError, match="does not report"):
        chain.invoke("Hello", guidance=GuidancePolicy(ask=0.5))
    assert teacher.asked == []


def test_tools_and_schemas_always_ask() -> None:
    call = pair(guidance=GATE)._settings(None, None, {"tools": [{"name": "f", "parameters": {}}]})
    assert call.asks_teacher and call.gate is None
    schema = {"type": "object", "properties": {}, "title": "T"}
    form = {"type": "json_schema", "json_schema": {"name": "T", "schema": schema}}
    assert not pair(guidance=GATE)._settings(None, None, {"response_format": form}).gate
    assert pair(guidance=GATE)._settings(None, None, {}).gate


def test_two_gates_never_share_a_cache_entry() -> None:
    one, other = pair(guidance=GATE), pair(guidance=GuidancePolicy(ask=0.6, probe_tokens=8))
    assert one._get_llm_string() != other._get_llm_string()


async def test_a_local_student_tells_what_its_model_says(student, problem) -> None:
    messages = [HumanMessage(problem.question)]
    told = student.probe(messages, tokens=6)
    assert await student.aprobe(messages, tokens=6) == pytest.approx(told, rel=1e-4)
    engine, prompts = student._engine, student._loader.load().prompts
    ids, _ = prompts.build(messages, None)
    with torch.inference_mode():
        out = engine.model.generate(
            torch.tensor([ids]),
            max_new_tokens=6,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    own = [logits[0].softmax(-1).max().item() for logits in out.logits]
    assert told == pytest.approx(own, rel=1e-3)
    assert student.probe(messages)[0] == pytest.approx(told[0], rel=1e-4)
    hot = student.model_copy(update={"temperature": 2.0})
    assert hot.probe(messages, tokens=6) == pytest.approx(told, rel=1e-4)  # greedy all the same


async def test_a_real_pair_is_gated(student, teacher, problem) -> None:
    told = confidence(student.probe([HumanMessage(problem.question)], tokens=16))
    fields = {"teacher": teacher, "student": student, "guidance_tokens": len(problem.plan)}
    for ask, calls in ((min(1.0, told * 1.0001), 1), (told * 0.9999, 0)):
        teacher.asked.clear()
        gate = GuidancePolicy(ask=ask, probe_tokens=16)
        message = await GuidedKnowledgeTransferChain(**fields, guidance=gate).ainvoke(
            problem.question
        )
        assert len(teacher.asked) == calls
        assert message.response_metadata["gkt"]["confidence"] == pytest.approx(told, rel=1e-4)
