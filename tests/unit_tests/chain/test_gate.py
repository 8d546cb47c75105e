"""Whether the teacher is asked at all: the policy's `ask`, and the student's confidence."""

from __future__ import annotations

import pytest
import torch
from langchain_core.messages import HumanMessage
from support.exam import pair, solution
from support.fakes import WordTeacher

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, track_costs
from langchain_gkt.guidance import confidence

EVEN, ODD = "What is one more than 10?", "What is one more than 11?"
GATE = GuidancePolicy(ask=0.5, probe_tokens=8)


async def every_door(chain, question):
    yield chain.invoke(question)
    yield await chain.ainvoke(question)
    yield sum_of(chain.stream(question))
    yield sum_of([chunk async for chunk in chain.astream(question)])
    yield chain.batch([question])[0]


def sum_of(chunks):
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


async def test_a_sure_student_is_not_helped() -> None:
    asked = []
    chain = pair(teacher={"diary": asked}, guidance=GATE)
    async for message in every_door(chain, EVEN):
        gkt = message.response_metadata["gkt"]
        assert message.text == solution(10)
        assert gkt["finished_by"] == "student"
        assert gkt["teacher_usage"] is None
        assert gkt["guidance"] == ""
        assert gkt["confidence"] == pytest.approx((0.9**2 * 0.99**6) ** (1 / 8))
    assert asked == []


async def test_an_unsure_student_is_helped() -> None:
    asked = []
    chain = pair(teacher={"diary": asked}, guidance=GATE)
    async for message in every_door(chain, ODD):
        assert message.text == solution(11)
        assert message.response_metadata["gkt"]["guidance"] == "Plan: take 11 and add"
        assert message.response_metadata["gkt"]["confidence"] < 0.5
    assert len(asked) == 5


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


def test_no_teacher_call_costs_nothing() -> None:
    chain = pair(guidance=GATE)
    with track_costs() as costs:
        chain.invoke(EVEN)
    data = costs.report().to_dict()
    assert (data["teacher"]["calls"], data["student"]["calls"]) == (0, 1)
    assert data["total"]["cost"] == "0"


def test_a_student_that_tells_nothing_is_refused_at_once(teacher) -> None:
    mute = WordTeacher(answer="x")
    with pytest.raises(ValueError, match=r"guidance\.ask=0\.5 .* WordTeacher does not tell"):
        GuidedKnowledgeTransferChain(
            teacher=teacher, student=mute, guidance=GuidancePolicy(ask=0.5)
        )
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=mute)
    with pytest.raises(ValueError, match="does not tell"):
        chain.invoke("Hello", guidance=GuidancePolicy(ask=0.5))
    assert teacher.asked == []


def test_tools_and_schemas_always_ask() -> None:
    call = pair(guidance=GATE)._settings(None, None, {"tools": [{"name": "f", "parameters": {}}]})
    assert call.asks_teacher and not call.gated
    schema = {"type": "object", "properties": {}, "title": "T"}
    form = {"type": "json_schema", "json_schema": {"name": "T", "schema": schema}}
    assert not pair(guidance=GATE)._settings(None, None, {"response_format": form}).gated
    assert pair(guidance=GATE)._settings(None, None, {}).gated


def test_a_policy_travels_as_a_file(tmp_path) -> None:
    policy = GuidancePolicy(tokens=12, cut="sentence", ask=0.75, probe_tokens=4)
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy
    for given in (tmp_path / "policy.json", str(tmp_path / "policy.json"), {"tokens": 12}):
        chain = pair(guidance=given, guidance_tokens=12)
        assert chain.guidance_tokens == 12
    assert pair(guidance=tmp_path / "policy.json", guidance_tokens=12).guidance.ask == 0.75


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "does not hold a GuidancePolicy"),
        ("[1]", "holds a list"),
        ('{"token": 3}', "did you mean 'tokens'"),
        ('{"ask": 2}', "between 0 and 1"),
        ('{"ask": true}', "between 0 and 1"),
        ('{"probe_tokens": 0}', "1 or more"),
        ('{"probe_tokens": 2.5}', "GuidancePolicy.probe_tokens must be a whole number"),
        ('{"tokens": "18"}', "GuidancePolicy.tokens must be a whole number"),
    ],
)
def test_a_bad_policy_file_is_named(tmp_path, text, said) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        GuidancePolicy.load(file)
    assert str(file) in str(caught.value)


def test_bad_policies_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="'always', 'never' or a confidence"):
        GuidancePolicy(ask="sometimes")
    with pytest.raises(FileNotFoundError):
        pair(guidance=tmp_path / "none.json")
    with pytest.raises(TypeError, match="guidance must be a GuidancePolicy"):
        pair(guidance=3)


def test_two_gates_never_share_a_cache_entry() -> None:
    one, other = pair(guidance=GATE), pair(guidance=GuidancePolicy(ask=0.6, probe_tokens=8))
    assert one._get_llm_string() != other._get_llm_string()


@pytest.mark.parametrize(
    ("probabilities", "mean"),
    [([], 1.0), ([0.25, 1.0], 0.5), ([0.0, 1.0], 0.0), ([1e-30] * 40, 1e-30)],
)
def test_confidence_is_a_geometric_mean(probabilities, mean) -> None:
    assert confidence(probabilities) == pytest.approx(mean)


async def test_a_local_student_tells_what_its_model_says(student, problem) -> None:
    messages = [HumanMessage(problem.question)]
    told = student.probe(messages, tokens=6)
    assert await student.aprobe(messages, tokens=6) == pytest.approx(told, rel=1e-4)
    engine, prompts = student._load()
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
