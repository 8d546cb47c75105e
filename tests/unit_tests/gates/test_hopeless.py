"""Where neither model would be right, no teacher is paid, whatever another gate says."""

from __future__ import annotations

import pytest
from support.models.exam import pair, solution
from support.models.predictors import Expectation, by_confidence, made_predictor

from langchain_gkt import GuidancePolicy
from langchain_gkt.gates import AgreementGate, ConfidenceGate, HopelessGate
from langchain_gkt.gates.learned import question_signals

QUESTION = "What is one more than 10?"
UNSURE = ConfidenceGate(below=1.0)
HOPEFUL, HOPELESS = (0.0, 0.0, 2.0), (0.0, 0.0, 0.1)


def by_numbers() -> HopelessGate:
    """A gate that knows: with many numbers nobody is right, with one the teacher is."""
    teacher = Expectation(weights=(-2.0,), bias=6.0, cost=1.0)
    student = Expectation(weights=(0.0,), bias=-2.0, cost=0.0)
    return HopelessGate(gate=UNSURE, predictor=made_predictor(none=student, all=teacher))


def test_only_questions_with_hope_are_asked() -> None:
    gate, first = by_numbers(), {"probability_1": 0.5}
    asked = {q: gate.decide({**question_signals(q, [0.5]), **first}) for q in ("1?", "1 2 3 4 5?")}
    assert asked == {"1?": "some", "1 2 3 4 5?": "none"}


@pytest.mark.parametrize(("odds", "finished_by"), [(HOPEFUL, "teacher"), (HOPELESS, "student")])
async def test_a_ladder_ends_early(odds, finished_by) -> None:
    asked: list = []
    gate = HopelessGate(gate=UNSURE, predictor=made_predictor(odds))
    chain = pair(teacher={"diary": asked}, guidance=GuidancePolicy(gate=gate, ladder=(0, "all")))
    for message in (chain.invoke(QUESTION), await chain.ainvoke(QUESTION)):
        gkt = message.response_metadata["gkt"]
        assert message.text == solution(10)
        assert gkt["finished_by"] == finished_by
        assert gkt["signals"]["hopeless"] == (finished_by == "student")
        assert set(gkt["predicted"]) == {"none", "some", "all"}
    assert bool(asked) == (finished_by == "teacher")


def test_the_other_gates_answer_is_shown() -> None:
    gate = HopelessGate(
        gate=AgreementGate(samples=3, at_least=3), predictor=made_predictor(HOPELESS)
    )
    chain = pair(guidance=GuidancePolicy(gate=gate, ladder=(0, "all")))
    message = chain.invoke(QUESTION)
    gkt = message.response_metadata["gkt"]
    assert gate.shown_as == "vote of 3"
    assert gkt["agreement"] is not None
    assert gkt["teacher_usage"] is None


def test_it_travels_in_a_policys_file(tmp_path) -> None:
    for inner in (UNSURE, AgreementGate(samples=7, at_least=5, answer_of="option")):
        gate = HopelessGate(gate=inner, predictor=by_confidence(4), least_gain=0.2)
        policy = GuidancePolicy(gate=gate, ladder=(0, "all"))
        policy.save(tmp_path / "policy.json")
        assert GuidancePolicy.load(tmp_path / "policy.json") == policy


def test_the_other_gates_threshold_is_calibrated() -> None:
    gate = HopelessGate(gate=UNSURE, predictor=made_predictor(HOPEFUL))
    half = gate.asking_above(-0.25)
    assert half.gate == ConfidenceGate(below=0.25)
    assert gate.score({"probability_1": 0.5}) == -0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gate": None}, "HopelessGate.gate must be another gate with a threshold"),
        ({"gate": by_numbers()}, "HopelessGate.gate must be another gate"),
        ({"gate": UNSURE, "least_gain": 2}, "HopelessGate.least_gain"),
        ({"gate": {"kind": "agree"}}, "kind='agree' is unknown"),
    ],
)
def test_fields_are_checked(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        HopelessGate(predictor=made_predictor(), **fields)
