"""What a policy's predictor decides, call by call."""

from __future__ import annotations

import pytest
from support.entry_points import ENTRY_POINTS, answer
from support.models.exam import Needy, Telling, pair, solution
from support.models.fakes import WordTeacher
from support.models.predictors import by_confidence, made_predictor

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain

EVEN, ODD = "What is one more than 10?", "What is one more than 11?"
NONE, SOME, ALL = (
    GuidancePolicy(tokens=6, predictor=made_predictor(odds))
    for odds in ((5.0, 0.0, 0.0), (-5.0, 5.0, 0.0), (-5.0, -5.0, 5.0))
)


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("policy", "amount", "limits", "by"),
    [
        (NONE, "none", [], "student"),
        (SOME, "some", [6], "student"),
        (ALL, "all", [None], "teacher"),
    ],
    ids=["none", "some", "all"],
)
async def test_each_amount_through_every_entry_point(how, policy, amount, limits, by) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked}, guidance=policy, guidance_tokens=6)
    message = await answer(chain, how, ODD)
    gkt = message.response_metadata["gkt"]
    assert [limit for _, limit in asked] == limits
    assert (gkt["amount"], gkt["finished_by"], gkt["confidence"]) == (amount, by, None)
    assert (message.text == solution(11)) == (amount != "none")
    assert set(gkt["predicted"]) == {"none", "some", "all"}
    whole = {"none": "", "some": "Plan: take 11 and add ", "all": solution(11)}
    assert gkt["guidance"] == whole[amount]


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("student", "predictor"),
    [
        (Needy(), by_confidence()),
        (Telling(), by_confidence()),
        (Telling(), by_confidence(feature="most_entropy", sign=-1)),
    ],
    ids=["probabilities", "both", "entropies"],
)
async def test_the_students_first_tokens_decide(how, student, predictor) -> None:
    asked: list = []
    policy = GuidancePolicy(tokens=6, predictor=predictor)
    teacher = pair(teacher={"diary": asked}).teacher
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance=policy)
    even, odd = await answer(chain, how, EVEN), await answer(chain, how, ODD)
    assert asked == [(11, 6)]
    assert (even.text, odd.text) == (solution(10), solution(11))
    assert even.response_metadata["gkt"]["predicted"]["none"] > 0.9
    assert odd.response_metadata["gkt"]["predicted"]["none"] < 0.1
    assert even.response_metadata["gkt"]["confidence"] == pytest.approx(
        (0.9**2 * 0.99**6) ** (1 / 8)
    )


def test_a_predictor_that_looks_at_no_tokens_asks_the_student_nothing() -> None:
    probed: list = []
    chain = pair(guidance=NONE).model_copy(update={"student": Telling(probed=probed)})
    chain.invoke(ODD)
    assert probed == []
    chain.invoke(ODD, guidance=GuidancePolicy(tokens=6, predictor=by_confidence(tokens=3)))
    assert probed == [3]


def test_the_whole_answer_may_be_as_long_as_the_chains() -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked}, guidance=ALL, max_tokens=9)
    message = chain.invoke(ODD)
    assert asked == [(11, 9)]
    # Nothing is left for the student, so nothing is cut back either.
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"
    assert message.text == "Plan: take 11 and add one. 11 + 1"


@pytest.mark.parametrize(("policy", "read"), [(NONE, 0), (SOME, 1), (ALL, 0)])
def test_only_guidance_has_the_student_read_ahead(
    teacher, student, problem, monkeypatch, policy, read
) -> None:
    ahead, prefill = [], type(student).prefill

    def noted(self, *args, **kwargs):
        ahead.append(args)
        return prefill(self, *args, **kwargs)

    monkeypatch.setattr(type(student), "prefill", noted)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance=policy)
    message = chain.invoke(problem.question)
    assert len(ahead) == read
    assert (message.response_metadata["gkt"]["student_usage"] is None) == (policy is ALL)


def test_a_failing_teacher_leaves_the_whole_answer_to_the_student() -> None:
    chain = pair(teacher={"fails_on": (10,)}, guidance=ALL, on_teacher_error="student")
    message = chain.invoke(EVEN)
    assert message.text == solution(10)
    assert "the line is down" in message.response_metadata["gkt"]["fallback"]


def test_no_tokens_ask_nobody_whatever_is_predicted() -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked}, guidance=GuidancePolicy(predictor=ALL.predictor))
    assert chain.invoke(EVEN, guidance_tokens=0).response_metadata["gkt"]["amount"] is None
    assert asked == []


def test_baselines_tools_and_schemas_go_without_a_prediction() -> None:
    chain = pair(guidance=NONE)
    gkt = chain.invoke(ODD, mode="teacher").response_metadata["gkt"]
    assert (gkt["amount"], gkt["predicted"], gkt["finished_by"]) == (None, None, "teacher")
    assert pair().invoke(ODD).response_metadata["gkt"]["predicted"] is None
    call = chain._settings(None, None, {"tools": [{"name": "f", "parameters": {}}]})
    assert call.asks_teacher and call.gate is None
    schema = {"type": "object", "properties": {}, "title": "T"}
    form = {"type": "json_schema", "json_schema": {"name": "T", "schema": schema}}
    assert chain._settings(None, None, {"response_format": form}).gate is None
    assert chain._settings(None, None, {}).gate


def test_a_student_that_cannot_give_the_features_is_refused_before_the_teacher_is_paid(
    teacher,
) -> None:
    mute = WordTeacher(answer="x")
    policy = GuidancePolicy(tokens=6, predictor=by_confidence())
    said = (
        r"guidance\.predictor is based on the probabilities .* first 8 tokens, which a WordTeacher"
    )
    with pytest.raises(ValueError, match=said):
        GuidedKnowledgeTransferChain(teacher=teacher, student=mute, guidance=policy)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=mute)
    with pytest.raises(ValueError, match="use a HuggingFaceStudent, or learn a predictor from"):
        chain.invoke("Hello", guidance=policy)
    entropies = GuidancePolicy(predictor=by_confidence(feature="first_entropy"))
    with pytest.raises(ValueError, match=r"the entropies of the student's .* which a Needy"):
        pair(guidance=entropies)
    assert teacher.asked == []
    # The text alone asks nothing of a student.
    GuidedKnowledgeTransferChain(teacher=teacher, student=mute, guidance=NONE)


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_an_engine_without_entropies_is_refused_before_the_teacher_is_paid(how) -> None:
    asked: list = []
    chain = GuidedKnowledgeTransferChain(
        teacher=pair(teacher={"diary": asked}).teacher,
        student=Telling(entropies=False),
        guidance=GuidancePolicy(predictor=by_confidence(feature="first_entropy")),
    )
    with pytest.raises(ValueError, match="engine does not report; learn a predictor from a sweep"):
        await answer(chain, how, ODD)
    assert asked == []


def test_two_predictors_never_share_a_cache_entry() -> None:
    keys = {pair(guidance=one, guidance_tokens=6)._get_llm_string() for one in (NONE, SOME, ALL)}
    assert len(keys) == 3
