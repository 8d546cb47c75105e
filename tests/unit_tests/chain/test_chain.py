"""What the chain takes and refuses, and what it answers in each mode."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from langchain_core.runnables import RunnableParallel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from support.models.fakes import MODELS, Recorder, WordTeacher, limit_inside, make

from langchain_gkt import Guidance, GuidancePolicy, GuidedKnowledgeTransferChain


def test_guidance_changes_the_answer(teacher, whole_student, problem) -> None:
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
    alone = chain.invoke(problem.question, mode="student")
    assert alone.text != problem.solution
    assert alone.response_metadata["gkt"]["teacher_usage"] is None
    assert chain.invoke(problem.question).text == problem.solution


def test_a_teacher_that_finishes_needs_no_student(teacher, student, problem) -> None:
    recorder = Recorder()
    chain = make(teacher, student, guidance_tokens=500)
    message = chain.invoke(problem.question, {"callbacks": [recorder]})
    assert message.text == problem.solution
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"
    assert not recorder.by_role("student")


def test_modes(teacher, student, problem) -> None:
    recorder = Recorder()
    alone = make(teacher, student, mode="teacher").invoke(
        problem.question, {"callbacks": [recorder]}
    )
    assert alone.text == problem.solution
    assert not recorder.by_role("student")
    assert teacher.asked[-1]["limit"] is None
    for chain in (
        make(teacher, student, mode="student"),
        make(teacher, student, guidance_tokens=0),
    ):
        count = len(teacher.asked)
        assert chain.invoke(problem.question).response_metadata["gkt"]["finished_by"] == "student"
        assert len(teacher.asked) == count


def test_the_three_modes_side_by_side(teacher, whole_student, problem) -> None:
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
    modes = ("guided", "teacher", "student")
    answers = RunnableParallel({mode: chain.bind(mode=mode) for mode in modes}).invoke(
        problem.question
    )
    assert answers["guided"].text == answers["teacher"].text == problem.solution
    assert answers["student"].text != problem.solution
    gkt = {mode: answers[mode].response_metadata["gkt"]["mode"] for mode in modes}
    assert gkt == {mode: mode for mode in modes}


def test_guide_gives_the_guidance_alone(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=limit_inside(problem.plan, problem.solution))
    guidance = chain.guide(problem.question)
    assert isinstance(guidance, Guidance)
    assert guidance.text == problem.plan + " "
    assert guidance.written == problem.solution[: chain.guidance_tokens]
    assert not guidance.complete
    with pytest.raises(ValueError, match="guidance_tokens of 1 or more"):
        make(teacher, student, guidance_tokens=0).guide(problem.question)


async def test_aguide_is_guide(teacher, student, problem) -> None:
    chain = make(teacher, student)
    assert await chain.aguide(problem.question) == chain.guide(problem.question)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"guidance_token": 3}, "did you mean 'guidance_tokens'"),
        ({"guidance_tokens": -1}, "guidance_tokens must be 0"),
        ({"mode": "both"}, "'guided', 'teacher', 'student' or 'verified'"),
        ({"guidance_tokens": 3, "guidance": GuidancePolicy(tokens=4)}, "disagree"),
        ({"teacher": "gpt-4o-mini"}, "teacher must be a LangChain chat model"),
        ({"student": 3}, "student must be a folder or hub id"),
        ({"student": "/no/such/folder"}, "is not a folder"),
        ({"student_kwargs": {"max_tokens": 3}}, "do not apply"),
    ],
)
def test_bad_arguments_are_named(arguments, says, teacher, student) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=says):
        GuidedKnowledgeTransferChain(**{"teacher": teacher, "student": student, **arguments})


def test_student_by_path_takes_student_kwargs(teacher) -> None:
    chain = make(teacher, str(MODELS / "student"), student_kwargs={"max_tokens": 9})
    assert chain.student.max_tokens == 9
    assert "WordTeacher" not in repr(chain)


WITHOUT_TORCH = """
import sys
from langchain_core.language_models import FakeListChatModel
import langchain_gkt.costs
from langchain_gkt import GuidedKnowledgeTransferChain

teacher = FakeListChatModel(responses=["a b c d e f g h"])
chain = GuidedKnowledgeTransferChain.model_construct(
    teacher=teacher, student=FakeListChatModel(responses=["the rest"]), mode="student"
)
assert chain.invoke("x").text == "the rest"
try:
    chain.with_structured_output({"title": "A"}, method="json_schema")
except TypeError as error:
    assert "needs a HuggingFaceStudent" in str(error)
sys.exit("torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_chain_of_ready_chat_models_imports_no_torch(light) -> None:
    done = light.run(WITHOUT_TORCH)
    assert done.returncode == 0, done.stderr


def test_tokens_are_counted_by_the_students_tokenizer(teacher, student) -> None:
    ids = student._engine.tokenizer("What is 3 plus 4?", add_special_tokens=False)["input_ids"]
    assert student.get_token_ids("What is 3 plus 4?") == ids
    assert make(teacher, student).get_num_tokens("What is 3 plus 4?") == len(ids)


def test_repr_is_short_and_tells_no_secret(student) -> None:
    for text in (repr(make(openai(), student)), str(make(openai(), student).to_json())):
        assert len(text) < 900
        assert "sk-secret" not in text
        assert "tensor" not in text.lower()


@pytest.mark.slow
def test_copies_and_pickles(problem, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")  # pickles hold no keys
    teachers = [
        openai(temperature=0.3, max_retries=7).with_retry(),
        openai().bind(user="me").with_fallbacks([openai(model="n")]),
        WordTeacher(answer=problem.solution),
    ]
    for teacher in teachers:
        chain = make(teacher, str(MODELS / "student"), guidance_tokens=len(problem.plan) + 3)
        for again in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain)), copy.copy(chain)):
            assert again._get_llm_string() == chain._get_llm_string()
            assert again.guidance_tokens == chain.guidance_tokens
    assert again.invoke(problem.question).text == problem.solution
    assert len(pickle.dumps(chain)) < 20_000
    first = pickle.loads(pickle.dumps(make(teachers[0], str(MODELS / "student"))))
    assert first.teacher.bound.openai_api_key.get_secret_value() == "k"
    tied = make(openai(metadata={"to": (n for n in "process")}), str(MODELS / "student"))
    with pytest.raises(TypeError, match=r"teacher cannot be pickled.*tied to this process"):
        pickle.dumps(tied)
    copy.deepcopy(tied)


def openai(**kwargs: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "m", "api_key": SecretStr("sk-secret"), **kwargs})
