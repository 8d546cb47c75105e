"""A strategy of one's own is one function: it is a mode, and others ask it what they must know."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.entry_points import ENTRY_POINTS, answer
from support.models.exam import pair, solution

from langchain_gkt import track_costs
from langchain_gkt.chain import strategy
from langchain_gkt.chain.messages import text_chunk
from langchain_gkt.chain.strategies.answer import Answer, last_chunk
from langchain_gkt.chain.strategies.steps import (
    ask_student,
    ask_teacher,
    show_teacher,
    unshown,
)

EVEN, ODD = "What is one more than 10?", "What is one more than 11?"


@pytest.fixture(autouse=True)
def student_first(monkeypatch):
    """The teacher is asked only if the student says that it does not know."""
    monkeypatch.setattr(strategy, "_STRATEGIES", dict(strategy._STRATEGIES))

    @strategy.strategy("student first", has_teacher_counterpart=True, student_may_answer=True)
    def student_first(settings, messages, *, streaming):
        made = Answer(
            settings=replace(settings, limit=None), messages=messages, streaming=streaming
        )
        yield from unshown(ask_student(made))
        if "no idea" in made.reply.text:
            draft, made.reply = made.reply, None
            yield from ask_teacher(made)
            yield from show_teacher(made)
            if made.fallback:
                made.reply = draft
        if made.reply:
            yield text_chunk(str(made.reply.text))
        yield last_chunk(made)


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_it_is_a_mode_through_every_entry_point(how) -> None:
    chain = pair(mode="student first")
    for question, number, paid in ((EVEN, 10, 0), (ODD, 11, 1)):
        with track_costs() as costs:
            message = await answer(chain, how, question)
        assert message.text == solution(number)
        assert message.response_metadata["gkt"]["strategy"] == "student first"
        assert (costs.report().teacher.calls, costs.report().student.calls) == (paid, 1)


def test_the_student_stands_in_for_the_teacher_because_the_strategy_says_so() -> None:
    chain = pair(mode="student first", on_teacher_error="student", teacher={"fails_on": (11,)})
    message = chain.invoke(ODD)
    assert message.text.endswith("The answer is 0.")
    assert "ConnectionError" in message.response_metadata["gkt"]["fallback"]


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"mode must be 'guided', .* 'verified' or 'student f"):
        pair(mode="gided")
