"""Verification: the student drafts, the teacher reads the draft and accepts or corrects it.

A teacher's prompt tokens cost a fraction of its completion tokens. It answers with one word, or
with a correction of the first wrong step, from which the student continues.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_gkt.chain.drivers import CallSteps
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.strategies.answer import Answer, last_chunk
from langchain_gkt.chain.strategies.guided import guided
from langchain_gkt.chain.strategies.steps import (
    ask_student,
    ask_teacher,
    decide,
    prepared,
    show_reply,
    show_teacher,
    unshown,
)
from langchain_gkt.chain.strategy import strategy
from langchain_gkt.guidance import Guidance
from langchain_gkt.prompts.verdicts import numbered, verdict_format


@strategy("verified", student_may_answer=True, asks_own_questions=True)
def verified(settings: CallSettings, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
    """Make one answer. Nothing is shown before the verdict.

    A gate, if the policy has one, decides which drafts need a verdict. Drafts of which it is sure
    are shown. Where it says ``all``, the teacher writes the whole answer. Calls with tools or a
    schema are guided.
    """
    if settings.tools or settings.response_format or not settings.asks_teacher:
        yield from guided(settings, messages, streaming=streaming)
        return
    answer = Answer(settings=settings, messages=messages, streaming=False)
    with (yield from prepared(answer, asks_teacher=False)):
        draft = yield from _draft(answer)
        if answer.amount == "all" or draft is None:
            answer.settings = replace(answer.settings, limit=settings.max_tokens)
            yield from ask_teacher(answer)
            yield from show_teacher(answer)
        elif answer.amount == "none" or (yield from _is_accepted(answer, draft)):
            yield from show_reply(answer, draft)
        else:
            yield from show_teacher(answer)
        if answer.reply is None:
            answer.streaming = streaming
            yield from ask_student(answer)
        yield last_chunk(answer)


def _draft(answer: Answer) -> Generator[Any, Any, AIMessage | None]:
    """Have the student answer. None if it failed and the turn is the teacher's."""
    draft: AIMessage | None = None
    if (gate := answer.settings.gate) is not None:
        signals = yield from decide(answer, gate)
        if answer.is_teachers:
            return None
        draft = signals.winner
    if draft is None and answer.amount != "all":
        yield from unshown(ask_student(answer))
        draft, answer.reply = answer.reply, None
        if draft is not None:
            answer.note_drafts([draft])
    return draft


def _is_accepted(answer: Answer, draft: AIMessage) -> Generator[Any, Any, bool]:
    """Ask for a verdict. If the draft is rejected, the answer begins with the correction."""
    text = str(draft.text)
    form = verdict_format(answer.settings.policy.verdict)
    asked = Answer(
        settings=answer.settings,
        messages=[*answer.messages, AIMessage(numbered(text)), HumanMessage(form.instruction)],
        streaming=False,
    )
    yield from ask_teacher(asked)
    answer.outcome, answer.fallback = asked.outcome, asked.fallback
    answer.add_usage(asked.other_usage)
    verdict = asked.outcome.guidance
    if verdict is None or asked.fallback:
        return True
    probability = _probability(verdict)
    begun = form.revise(verdict.text, text)
    if begun is None or begun == text:
        if begun is None:
            answer.fallback = "the verdict could not be read, so the student's draft is shown"
        answer.signals["verdict"] = 0.5 if begun is None else probability
        answer.outcome.guidance = None
        return True
    answer.signals["verdict"] = 1 - probability
    # The correction is a beginning, even if the teacher ended it by itself.
    answer.outcome.guidance = replace(verdict, text=begun, complete=False, finish_reason=None)
    answer.in_answer = verdict.token_count
    return False


def _probability(verdict: Guidance) -> float:
    """Return the probability of the verdict's first token, or 1 if the teacher reports none."""
    return 1.0 if verdict.logprob is None else math.exp(min(0.0, verdict.logprob))
