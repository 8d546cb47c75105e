"""The paper's strategy: the teacher begins the answer, the student finishes it.

A gate may decide how much the teacher writes, once or on a ladder of rising amounts.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import add_usage

from langchain_gkt.chain.drivers import CallSteps
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.student_step import StudentStep
from langchain_gkt.chain.strategies.answer import Answer, last_chunk
from langchain_gkt.chain.strategies.steps import (
    ask_student,
    ask_teacher,
    decide,
    prepared,
    show_reply,
    show_teacher,
)
from langchain_gkt.chain.strategies.tool_calls import student_calls
from langchain_gkt.chain.strategy import strategy
from langchain_gkt.gates import Amount, Gate
from langchain_gkt.guidance import Guidance, Rung


@strategy("guided", has_teacher_counterpart=True, student_may_answer=True)
def guided(settings: CallSettings, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
    """Make one answer."""
    answer = Answer(settings=settings, messages=messages, streaming=streaming)
    if (yield from student_calls(answer)):
        yield last_chunk(answer)
        return
    settings = answer.settings
    gate, ladder = settings.gate, settings.policy.ladder
    if gate is not None and ladder is not None and settings.asks_teacher:
        yield from _climb(answer, gate, ladder)
        return
    amount, winner = yield from _decide(answer)
    if amount == "all":
        answer.settings = replace(answer.settings, limit=settings.max_tokens)
    # After the teacher's whole answer nothing is left to the student.
    with (yield from prepared(answer, asks_teacher=amount == "some")):
        if amount != "none" or answer.is_teachers:
            yield from ask_teacher(answer)
            yield from show_teacher(answer)
        elif winner is not None:
            yield from show_reply(answer, winner)
        if answer.reply is None:
            yield from ask_student(answer)
        yield last_chunk(answer)


def _decide(answer: Answer) -> Generator[Any, Any, tuple[Amount, AIMessage | None]]:
    """Decide how much the teacher writes. If nothing, the gate may already have an answer."""
    settings = answer.settings
    if not settings.asks_teacher:
        return "none", None
    if (gate := settings.gate) is None:
        return "all" if settings.policy.ladder == ("all",) else "some", None
    signals = yield from decide(answer, gate)
    return answer.amount or "all", signals.winner  # no amount: the student has failed


def _climb(answer: Answer, gate: Gate, ladder: tuple[Rung, ...]) -> CallSteps:
    """Go up a ladder until the gate is sure, and show nothing before."""
    winner: AIMessage | None = None
    rungs = list(ladder)
    with (yield from prepared(answer, asks_teacher=False)):
        if answer.is_teachers:
            rungs = ["all"]
        while rungs:
            rung = rungs.pop(0)
            if rung:
                yield from _more(answer, rung, streaming=answer.streaming and not rungs)
            guidance = answer.outcome.guidance
            over = answer.outcome.tool_reply or answer.fallback or (guidance and guidance.complete)
            if over or not rungs:
                break
            signals = yield from decide(answer, gate)
            if answer.is_teachers:
                rungs = ["all"]
            elif answer.amount == "none":
                winner = signals.winner
                break
            elif answer.amount == "all":
                rungs = rungs[-1:]
        yield from show_teacher(answer)
        if winner is not None:
            yield from show_reply(answer, winner, guidance.text if guidance else "")
        else:
            yield from ask_student(answer)
        yield last_chunk(answer)


def _more(answer: Answer, rung: Rung, *, streaming: bool) -> CallSteps:
    """Have the teacher write up to a rung, after its earlier text if it can continue."""
    settings, outcome, first = answer.settings, answer.outcome, answer.outcome.guidance
    most, messages = settings.max_tokens, answer.messages
    limit = most if rung == "all" else min(rung, most or rung)
    continues = first is not None and bool(first.text) and settings.teacher_continues
    if first is not None and continues:
        messages = StudentStep(settings).behind(messages, first.text.rstrip())
        limit = None if limit is None else max(1, limit - first.token_count)
        # The rest is the whole answer, and nothing of it is cut.
        most = None if most is None else max(1, most - first.token_count)
    more = Answer(
        settings=replace(settings, limit=limit, max_tokens=most),
        messages=messages,
        streaming=streaming and not continues,
        reserved=answer.reserved,
    )
    yield from ask_teacher(more)
    new = more.outcome
    if first is not None:
        new.calls += outcome.calls
        new.tokens += outcome.tokens
        new.estimated |= outcome.estimated
        # After the first part of its answer it reads that part, too.
        new.prompt_tokens = outcome.prompt_tokens or new.prompt_tokens
        if outcome.usage:
            new.usage = add_usage(new.usage, outcome.usage)
        if new.guidance is None and new.tool_reply is None:  # it failed, and the first part is left
            new.guidance = first
        elif new.guidance is not None and continues:
            new.guidance = _joined(first, new.guidance)
    answer.add_usage(more.other_usage)
    answer.outcome, answer.fallback = new, more.fallback or answer.fallback
    answer.teacher_failed = more.teacher_failed
    answer.in_answer = new.guidance.token_count if new.guidance else None


def _joined(first: Guidance, second: Guidance) -> Guidance:
    """Join two parts of a text. The teacher did not see the whitespace between them."""
    begun = first.text.rstrip()
    text = second.text
    if whitespace := first.text[len(begun) :]:
        text = f"{whitespace}{text.lstrip()}"
    usage: Any = None
    if first.usage and second.usage:  # one answer, to one prompt
        prompt = first.usage["input_tokens"]
        usage = add_usage(first.usage, second.usage)
        total = prompt + usage["output_tokens"]
        usage = {**usage, "input_tokens": prompt, "total_tokens": total}
    return replace(
        second,
        text=f"{begun}{text}",
        token_count=first.token_count + second.token_count,
        usage=usage,
        written=f"{begun}{second.written}",
        estimated=first.estimated or second.estimated,
    )
