"""What a bulk job is given: options, output columns, chains, prompts."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from support.models.fakes import make

from langchain_gkt import GuidancePolicy
from langchain_gkt.bulk import BulkOptions, guide_dataset
from langchain_gkt.bulk.chains import GuidanceKeys, check_chain, read_prompt
from langchain_gkt.bulk.columns import TeacherResult, output_names
from langchain_gkt.costs import MachineTime
from langchain_gkt.evaluation.running.records import ModelUsage
from langchain_gkt.prompts import InstructTeacher


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"calls_in_flight": 0}, "calls_in_flight must be a whole number, 1 or more"),
        ({"teacher_workers": 3, "calls_in_flight": 2}, "give each at least one call"),
        ({"requests_per_minute": 0}, "requests_per_minute must be above 0"),
        ({"students": (2, 1)}, "students must be 2"),
        ({"students": (1, 2, 3)}, "students must be a number or"),
        ({"student_cpus": -1}, "student_cpus must be at least 0"),
        ({"processor": object(), "student_price": MachineTime(usd_per_hour=1)}, "give a Price"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BulkOptions.of(given)


def test_options_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="did you mean 'attempts'"):
        BulkOptions.of({"atempts": 2})
    with pytest.raises(TypeError, match="budget must be a Budget"):
        BulkOptions(budget="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tokens_per_minute must be a number"):
        BulkOptions(tokens_per_minute="1000")  # type: ignore[arg-type]


def test_output_columns_are_names_or_new_names() -> None:
    assert output_names(["answer", "cost"]) == {"answer": "answer", "cost": "cost"}
    assert output_names({"answer": "said"}) == {"answer": "said"}
    with pytest.raises(TypeError, match="must be names such as"):
        output_names("answer")
    with pytest.raises(ValueError, match="two columns the same name"):
        output_names({"answer": "a", "error": "a"})


def test_ray_is_named_if_it_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install \"langchain-gkt\[ray\]\""):
        guide_dataset(None, None, prompt_column="q")  # type: ignore[arg-type]


def test_a_chain_that_asks_the_student_first_is_refused(teacher, student) -> None:
    gated = make(teacher, student, guidance=GuidancePolicy(ask=0.9))
    with pytest.raises(ValueError, match="asks the teacher first"):
        check_chain(gated)


def test_keys_name_what_the_reply_depends_on(teacher, student) -> None:
    def key(prompt: str = "question", **fields: Any) -> str:
        return GuidanceKeys(make(teacher, student, **fields)).of(read_prompt(prompt, "q"))

    assert key() == key(on_teacher_error="student")
    assert key(guidance_tokens=8) == key(guidance_tokens=8, guidance=GuidancePolicy(cut="none"))
    different = [
        key(),
        key("another"),
        key(guidance_tokens=8),
        key(temperature=0.5),
        key(stop=["."]),
        key(teacher_prompt=InstructTeacher(text="Be brief.")),
    ]
    assert len(set(different)) == len(different)


def test_a_result_survives_its_way_between_the_stages() -> None:
    part = ModelUsage(calls=2, prompt_cost="0.1", completion_cost=None)
    result = TeacherResult(key="k", guidance="half \ud83d", part=part)
    assert TeacherResult.from_json(result.to_json()) == result
