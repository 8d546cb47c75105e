"""Settings of one call: fields, call-time arguments, bound ones and configured ones."""

from __future__ import annotations

import pytest
from langchain_core.runnables import ConfigurableField
from support.models.fakes import WordTeacher, make
from support.models.scripted import ToolTeacher

from langchain_gkt import GuidancePolicy


def test_bad_call_time_arguments_are_named(teacher, student, problem) -> None:
    chain = make(teacher, student)
    with pytest.raises(TypeError, match="did you mean 'guidance_tokens'"):
        chain.invoke(problem.question, guidance_toks=3)
    with pytest.raises(ValueError, match="guidance_tokens must be 0"):
        chain.invoke(problem.question, guidance_tokens=-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number, 1 or more, not 0"),
        ({"max_tokens": -3}, "max_tokens must be"),
        ({"temperature": -1}, "temperature must be a number, 0 or more"),
        ({"guidance_tokens": "5"}, "a whole number, not '5'"),
    ],
)
def test_call_time_values_are_checked(arguments, says, teacher, student) -> None:
    with pytest.raises(ValueError, match=says):
        make(teacher, student).invoke("x", **arguments)
    with pytest.raises(ValueError, match="method must be"):
        make(teacher, student).with_structured_output({"title": "A"}, method="foo")


@pytest.mark.slow
def test_arguments_can_be_bound(teacher, student, problem) -> None:
    chain = make(teacher, student)
    chain.bind(guidance_tokens=7).invoke(problem.question)
    chain.bind(guidance=GuidancePolicy(tokens=5)).invoke(problem.question)
    assert [asked["limit"] for asked in teacher.asked] == [7, 5]


@pytest.mark.slow
@pytest.mark.parametrize("policy", [None, GuidancePolicy(tokens=9)])
def test_fields_can_be_configured_for_a_call(policy, teacher, whole_student, problem) -> None:
    given = {"guidance": policy} if policy else {"guidance_tokens": 9}
    chain = make(teacher, whole_student, **given).configurable_fields(
        guidance_tokens=ConfigurableField(id="tokens"),
        mode=ConfigurableField(id="mode"),
        temperature=ConfigurableField(id="heat"),
    )
    chain.invoke(problem.question)
    limit = len(problem.plan) + 3
    configured = {"configurable": {"tokens": limit, "heat": 0.0}}
    assert chain.invoke(problem.question, configured).text == problem.solution
    assert len(list(chain.stream(problem.question, configured))) > 5
    assert [asked["limit"] for asked in teacher.asked] == [9, limit, limit]
    alone = chain.with_config(configurable={"mode": "student"}).invoke(problem.question)
    assert alone.response_metadata["gkt"]["mode"] == "student"


def test_max_tokens_bounds_the_whole_answer(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=20, max_tokens=26)
    gkt = chain.invoke(problem.question).response_metadata["gkt"]
    assert gkt["student_usage"]["output_tokens"] == 6
    chain.invoke(problem.question, max_tokens=5)
    assert teacher.asked[-1]["limit"] == 5


def test_stop_reaches_both(teacher, whole_student, problem) -> None:
    chain = make(
        teacher, whole_student, guidance_tokens=len(problem.plan) + 3, stop=[" The answer"]
    )
    assert chain.invoke(problem.question).text == problem.solution.split(" The answer")[0]
    early = make(teacher, whole_student, guidance_tokens=len(problem.plan))
    message = early.invoke(problem.question, stop=["lan"])
    assert message.text == "P"
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"


def test_the_teachers_model_can_be_named_for_a_call(student) -> None:
    teacher = ToolTeacher(log=[])
    message = make(teacher, student).invoke("Hello", model="another")
    assert teacher.log[0]["model"] == "another"
    assert message.response_metadata["model_name"] == "langchain-gkt/another"
    assert make(teacher, student).invoke("Hello").response_metadata["model_name"] == "langchain-gkt"


def test_configurable_teachers(whole_student, problem, teacher) -> None:
    shorter = WordTeacher(answer="Short.", asked=[])
    either = teacher.configurable_alternatives(ConfigurableField(id="who"), short=shorter)
    chain = make(either, whole_student, guidance_tokens=len(problem.plan) + 3)
    assert chain.invoke(problem.question).text == problem.solution
    config = {"configurable": {"who": "short"}}
    assert chain.invoke(problem.question, config).text == "Short."
    assert "".join(c.text for c in chain.stream(problem.question, config)) == "Short."
    assert chain.batch([problem.question] * 2, config)[1].text == "Short."
    assert chain.guide(problem.question, config).text == "Short."


async def test_models_of_init_chat_model(student) -> None:
    from langchain.chat_models import init_chat_model

    fixed = init_chat_model("openai:gpt-4o-mini", api_key="k")
    assert make(fixed, student).teacher is fixed
    open_ = init_chat_model(
        "openai:gpt-4o-mini", api_key="k", configurable_fields=("model", "base_url")
    )
    chain = make(open_.with_retry(), student)
    one = chain._for_config({"configurable": {"model": "gpt-4o"}})
    assert one.teacher.bound.model_name == "gpt-4o"
    assert one._get_llm_string() != chain._for_config(None)._get_llm_string()


def test_a_configurable_model_that_names_none_says_what_is_missing(student) -> None:
    from langchain.chat_models import init_chat_model

    teacher = init_chat_model(configurable_fields="any", config_prefix="big", api_key="k")
    chain = make(teacher, student)
    with pytest.raises(ValueError, match=r"teacher names no model.*'big_model': 'provider:name'"):
        chain.invoke("Hello")
