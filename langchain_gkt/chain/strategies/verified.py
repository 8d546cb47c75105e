"""Verification: the student drafts, the teacher reads the draft and accepts or corrects it.

What a teacher reads costs a fraction of what it writes. It answers with one word, or with the
first wrong step put right, from which the student goes on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import add_usage

from langchain_gkt.chain.drivers import CallSteps
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.strategies.answer import Answer, last_chunk
from langchain_gkt.chain.strategies.guided import guided
from langchain_gkt.chain.strategies.steps import (
    ask_student,
    ask_teacher,
    measure,
    prepared,
    show_reply,
    show_teacher,
    unshown,
)
from langchain_gkt.chain.strategy import strategy
from langchain_gkt.guidance import Guidance

VERDICT_PROMPT = (
    "Check the answer above, whose steps are numbered. If all steps and the result are right, "
    "reply with OK and nothing else. If not, reply with the number of the first wrong step, a "
    "colon, and that step put right, such as 3: 12 * 2 = 24. Do not write the steps after it."
)
"""What the teacher is asked behind a draft."""

_ACCEPTED = re.compile(r"\W*(?:ok(?:ay)?|right|correct|yes)\b", re.IGNORECASE)
_CORRECTED = re.compile(r"\W*(?:step\s*)?(?P<number>\d+)\s*[:.)]\s*(?P<text>\S.*)", re.I | re.S)
_SENTENCE_END = re.compile(r"(?<=[.!?]\s)")


@strategy("verified", student_may_answer=True, asks_own_questions=True)
def verified(settings: CallSettings, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
    """Make one answer.

    A gate, if the policy has one, says which drafts are worth a verdict: those of which it is
    sure are shown, and those that it calls hopeless (``all``) are the teacher's whole answers.
    Calls with tools or a schema are guided.

    Args:
        settings: The settings of the call.
        messages: The conversation.
        streaming: Whether the models are streamed. Nothing is shown before the verdict.
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
    """Have the student answer; None if it failed and the turn is the teacher's."""
    draft: AIMessage | None = None
    if (gate := answer.settings.gate) is not None:
        signals = yield from measure(answer, gate)
        if answer.is_teachers:
            return None
        answer.amount = gate.decide(signals)
        answer.expected = gate.expectations(signals)
        draft = signals.winner
    if draft is None and answer.amount != "all":
        yield from unshown(ask_student(answer))
        draft, answer.reply = answer.reply, None
        if draft is not None:
            answer.note_drafts([draft])
    return draft


def _is_accepted(answer: Answer, draft: AIMessage) -> Generator[Any, Any, bool]:
    """Ask for a verdict; if the draft is not accepted, the answer begins with the correction."""
    steps = _steps(str(draft.text))
    numbered = "\n".join(f"{n}. {step.strip()}" for n, step in enumerate(steps, 1))
    asked = Answer(
        settings=answer.settings,
        messages=[*answer.messages, AIMessage(numbered), HumanMessage(VERDICT_PROMPT)],
        streaming=False,
    )
    yield from ask_teacher(asked)
    answer.outcome, answer.fallback = asked.outcome, asked.fallback
    if asked.other_usage:
        answer.other_usage = add_usage(answer.other_usage, asked.other_usage)
    verdict = asked.outcome.guidance
    if verdict is None or asked.fallback:
        return True
    probability = _probability(verdict)
    corrected = _CORRECTED.match(verdict.text)
    number = int(corrected["number"]) if corrected else 0
    if corrected is None or not 1 <= number <= len(steps):
        accepted = _ACCEPTED.match(verdict.text) is not None
        if not accepted:
            answer.fallback = "the verdict could not be read, so the student's draft is shown"
        answer.signals["verdict"] = probability if accepted else 0.5
        answer.outcome.guidance = None
        return True
    answer.signals["verdict"] = 1 - probability
    kept = "".join(steps[: number - 1])
    # The correction is a beginning, also where the teacher ended it by itself.
    answer.outcome.guidance = replace(
        verdict, text=f"{kept}{corrected['text']}", complete=False, finish_reason=None
    )
    answer.in_answer = verdict.token_count
    return False


def _steps(text: str) -> list[str]:
    """Part a draft into lines, or into sentences if it has one line; joined they are the text."""
    steps: list[str] = []
    for line in text.splitlines(keepends=True):
        if steps and not line.strip():
            steps[-1] += line
        else:
            steps.append(line)
    return steps if len(steps) > 1 else _SENTENCE_END.split(text)


def _probability(verdict: Guidance) -> float:
    """Return how sure the teacher is of the first token of its verdict; 1 if it does not say."""
    return 1.0 if verdict.logprob is None else math.exp(min(0.0, verdict.logprob))
