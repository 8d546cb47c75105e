"""The two baselines: the teacher alone, and the student alone."""

from __future__ import annotations

from langchain_core.messages import BaseMessage

from langchain_gkt.chain.drivers import CallSteps
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.strategies.answer import Answer, last_chunk
from langchain_gkt.chain.strategies.steps import (
    ask_student,
    ask_teacher,
    prepared,
    show_teacher,
)
from langchain_gkt.chain.strategy import strategy


@strategy("teacher", roles=("teacher",))
def teacher_alone(
    settings: CallSettings, messages: list[BaseMessage], *, streaming: bool
) -> CallSteps:
    """Have the teacher make the whole answer."""
    answer = Answer(settings=settings, messages=messages, streaming=streaming)
    yield from ask_teacher(answer)
    yield from show_teacher(answer)
    yield last_chunk(answer)


@strategy("student", roles=("student",))
def student_alone(
    settings: CallSettings, messages: list[BaseMessage], *, streaming: bool
) -> CallSteps:
    """Have the student make the whole answer."""
    answer = Answer(settings=settings, messages=messages, streaming=streaming)
    with (yield from prepared(answer, asks_teacher=False)):
        yield from ask_student(answer)
        yield last_chunk(answer)
