"""The paper's strategy: the teacher begins the answer, the student finishes it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_gkt.chain.drivers import CallSteps
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.strategies.steps import (
    Answer,
    ask_student,
    ask_teacher,
    last_chunk,
    measure,
    prepared,
    show_teacher,
)
from langchain_gkt.chain.strategy import strategy
from langchain_gkt.gates import Amount


@strategy("guided", has_teacher_counterpart=True, student_may_answer=True)
def guided(settings: CallSettings, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
    """Make one answer.

    Args:
        settings: The settings of the call.
        messages: The conversation.
        streaming: Whether the models are streamed.
    """
    answer = Answer(settings=settings, messages=messages, streaming=streaming)
    amount = yield from _decide(answer)
    if amount == "all":
        answer.settings = replace(settings, limit=settings.max_tokens)
    # Behind the teacher's whole answer nothing is left to the student.
    with (yield from prepared(answer, asks_teacher=amount == "some")):
        if amount != "none":
            yield from ask_teacher(answer)
            yield from show_teacher(answer)
        yield from ask_student(answer)
        yield last_chunk(answer)


def _decide(answer: Answer) -> Generator[Any, Any, Amount]:
    """Decide how much the teacher writes."""
    settings = answer.settings
    if not settings.asks_teacher:
        return "none"
    if (gate := settings.gate) is None:
        return "some"
    signals = yield from measure(answer, gate)
    answer.amount = gate.decide(signals)
    answer.expected = gate.expectations(signals)
    return answer.amount
