"""Teachers limited to a number of tokens, by whatever name they know the limit."""

from __future__ import annotations

import warnings

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_openai import ChatOpenAI
from support.models.fakes import MODELS, WordTeacher

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.teachers.settings import TeacherSettings, streams_usage, with_settings
from langchain_gkt.teachers.wrappers import models_of


class OddTeacher(WordTeacher):
    """Knows its limit by a name of its own, as an argument of its calls."""

    def _generate(self, messages, stop=None, run_manager=None, *, budget=None, **kwargs):
        copy = self.model_copy(update={"num_predict": budget})
        return super(OddTeacher, copy)._generate(messages, stop, run_manager, **kwargs)


def openai(**kwargs) -> ChatOpenAI:
    return ChatOpenAI(model="m", api_key="k", **kwargs)


def test_openai_is_held_by_its_own_field_and_left_as_it_was() -> None:
    model = openai(max_tokens=900, temperature=1, streaming=True)
    held = with_settings(model, TeacherSettings(limit=12, temperature=0.0))
    assert held._get_request_payload("x")["max_completion_tokens"] == 12
    assert held.temperature == 0.0
    assert held.disable_streaming is True
    assert (model.max_tokens, model.temperature, model.disable_streaming) == (900, 1, False)


def test_a_limit_in_model_kwargs_does_not_win() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # langchain-openai advises against it
        model = openai(model_kwargs={"max_completion_tokens": 900, "user": "me"})
    held = with_settings(model, TeacherSettings(limit=12))
    payload = held._get_request_payload("x")
    assert payload["max_completion_tokens"] == 12
    assert payload["user"] == "me"


def test_wrapped_teachers_are_held_inside() -> None:
    main, spare = WordTeacher(answer="x" * 50, asked=[]), WordTeacher(answer="y", asked=[])
    main.fails_with = ConnectionError("down")
    wrapped = main.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    wrapped = wrapped.with_fallbacks([spare.bind(num_predict=99)])
    assert [type(m) for m in models_of(wrapped)] == [WordTeacher, WordTeacher]
    assert with_settings(wrapped, TeacherSettings(limit=5)).invoke("q").text == "y"
    assert [asked["limit"] for asked in main.asked] == [5, 5]
    assert spare.asked == [{"messages": spare.asked[0]["messages"], "limit": 5}]


def test_another_limit_name_can_be_given(student, problem) -> None:
    teacher = OddTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=9, teacher_limit_param="budget"
    )
    assert chain.guide(problem.question).written == problem.solution[:9]


def test_a_teacher_without_any_limit_is_cut_and_said_once(student) -> None:
    teacher = FakeListChatModel(responses=["word " * 100])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=8)
    with pytest.warns(UserWarning, match=r"whole answers are paid for.*teacher_limit_param"):
        guidance = chain.guide("q")
    assert 3 <= len(guidance.text.split()) <= 8
    assert chain.guide("q").text == guidance.text  # a second warning would be an error here


@pytest.mark.slow
def test_a_server_that_ignores_the_limit_is_named_once(whole_student, problem) -> None:
    teacher = WordTeacher(answer=problem.solution, asked=[], obeys=False)
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=whole_student, guidance_tokens=len(problem.plan) + 3
    )
    with pytest.warns(UserWarning, match="tokens although it was asked for at most"):
        message = chain.invoke(problem.question)
    assert message.response_metadata["gkt"]["guidance_tokens"] == len(problem.solution)
    assert message.text == problem.solution
    assert chain.invoke(problem.question).text == problem.solution


@pytest.mark.slow
async def test_chat_huggingface_on_a_pipeline_is_held(student, problem) -> None:
    pipeline = HuggingFacePipeline.from_model_id(
        str(MODELS / "teacher"), task="text-generation", pipeline_kwargs={"do_sample": False}
    )
    teacher = ChatHuggingFace(llm=pipeline)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=14)
    tokens = pipeline.pipeline.tokenizer(problem.solution)["input_ids"][:14]
    assert chain.guide(problem.question).written == pipeline.pipeline.tokenizer.decode(tokens)
    message = await chain.ainvoke(problem.question)
    assert message.response_metadata["gkt"]["teacher_usage"] is None  # it reports none


def test_only_teachers_that_say_so_stream_their_usage() -> None:
    assert streams_usage(openai(stream_usage=True).bind(user="me"))
    assert not streams_usage(openai(stream_usage=True).with_retry())  # nothing retries a stream
    assert not streams_usage(openai(base_url="http://127.0.0.1:9/v1"))
    assert not streams_usage(WordTeacher(asked=[]))


def test_what_is_bound_to_the_teacher_stays_bound(student, problem) -> None:
    teacher = WordTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher.bind(stop=["ZZ"], extra=1), student=student
    )
    assert chain.teacher.kwargs["stop"] == ["ZZ"]
    chain.invoke(problem.question)
    assert teacher.asked[0]["extra"] == 1
    held = with_settings(teacher.bind(temperature=0.0), TeacherSettings(temperature=0.9))
    assert held.kwargs == {}
    assert held.bound.temperature == 0.9
