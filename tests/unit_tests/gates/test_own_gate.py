"""A gate of one's own is one class: it decides calls, travels in a file and can be calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from support.models.exam import pair, solution

from langchain_gkt import GuidancePolicy
from langchain_gkt.gates import AgreementGate, ConfidenceGate, ThresholdGate


@dataclass(frozen=True, kw_only=True)
class LongQuestions(ThresholdGate):
    """Asks the teacher if the question is long."""

    kind: ClassVar[str] = "long questions"
    characters: float

    def measure(self, student, messages) -> dict[str, float]:
        return {"question_length": float(len(messages[-1].text))}

    def score(self, signals: Mapping[str, float]) -> float:
        return signals["question_length"]

    def decide(self, signals: Mapping[str, float]) -> str:
        return "all" if self.score(signals) > self.characters else "none"

    def asking_above(self, score: float) -> LongQuestions:
        return replace(self, characters=score)


SHORT, LONG = "What is one more than 10?", "Please tell me: what is one more than 11?"


def test_it_decides_what_the_teacher_writes() -> None:
    asked: list = []
    chain = pair(
        teacher={"diary": asked}, guidance=GuidancePolicy(gate=LongQuestions(characters=30))
    )
    short, long = chain.invoke(SHORT), chain.invoke(LONG)
    assert [limit for _, limit in asked] == [None]
    assert (short.text, long.text) == (solution(10), solution(11))
    assert short.response_metadata["gkt"]["signals"] == {"question_length": 25.0}
    assert [one.response_metadata["gkt"]["amount"] for one in (short, long)] == ["none", "all"]
    assert long.response_metadata["gkt"]["finished_by"] == "teacher"


def test_it_travels_in_a_policys_file(tmp_path) -> None:
    policy = GuidancePolicy(gate=LongQuestions(characters=30))
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy
    assert pair(guidance=policy)._get_llm_string() != pair()._get_llm_string()


def test_it_is_calibrated_like_any_other() -> None:
    policy = GuidancePolicy(gate=LongQuestions(characters=0))
    questions = ["x" * length for length in range(1, 11)]
    half = policy.calibrate(pair().student, questions, share=0.5)
    assert half.gate == LongQuestions(characters=5.5)


def test_two_gates_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="kind='confidence' is taken by ConfidenceGate; rename"):

        class Other(ThresholdGate):
            kind = "confidence"


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match=r"AgreementGate got an unknown argument 'sample'.*samples"):
        AgreementGate(sample=9)
    with pytest.raises(TypeError, match="ConfidenceGate got an unknown argument"):
        ConfidenceGate(below=0.5, tokns=3)
    with pytest.raises(TypeError, match="unknown argument"):
        GuidancePolicy(gate={"kind": "agreement", "sample": 9})


def test_an_unknown_gate_is_named() -> None:
    with pytest.raises(ValueError, match=r"gate\.kind='confidense' is unknown; did you mean 'conf"):
        GuidancePolicy(gate={"kind": "confidense", "below": 0.5})
    with pytest.raises(TypeError, match=r"GuidancePolicy\.gate must be a gate, not str"):
        GuidancePolicy(gate="confidence")
