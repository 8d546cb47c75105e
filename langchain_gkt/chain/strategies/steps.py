"""The building blocks of strategies. Each is a generator of steps over one `Answer`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGenerationChunk

from langchain_gkt.chain.callbacks.usage import prompt_share
from langchain_gkt.chain.drivers import BlockingWork, CallSteps, ModelCall
from langchain_gkt.chain.messages import (
    leading_text,
    rest_of,
    retraction,
    text_chunk,
    tool_call_chunk_of,
)
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.received import received
from langchain_gkt.chain.steps.student_step import NoRoom, StudentStep, shown_reply
from langchain_gkt.chain.steps.teacher_step import TeacherStep
from langchain_gkt.chain.strategies.answer import Answer
from langchain_gkt.errors import BudgetExceeded, GKTError, StudentError, TeacherError, bounded
from langchain_gkt.gates import Gate, Signals
from langchain_gkt.prompts.base import PreparedPrompt
from langchain_gkt.providers.errors import provider_error, teacher_error
from langchain_gkt.students.voting import vote
from langchain_gkt.teachers.refusals import is_refusal, refused
from langchain_gkt.teachers.secrets import hide_in_error, secrets_of
from langchain_gkt.texts.begun_answer import begun_text
from langchain_gkt.time_limit import OutOfTime


def measure(answer: Answer, gate: Gate) -> Generator[Any, Any, Signals]:
    """Have a gate measure the question, and the guidance so far.

    The answer records the signals, and the answers that the student wrote for them. There are no
    signals if the student fails and the turn is left to the teacher.

    Raises:
        ValueError: If the student does not report what the gate needs.
    """
    step, guidance = StudentStep(answer.settings), answer.outcome.guidance
    student, messages = step.for_gates, answer.messages
    gate.require(student)
    if guidance and guidance.text:
        messages = step.behind(messages, guidance.text)
    try:
        signals = yield BlockingWork(
            partial(gate.measure, student, messages), partial(gate.ameasure, student, messages)
        )
    except Exception as error:  # noqa: BLE001  whatever a student raises
        leave_to_teacher(answer, error)
        return Signals({})
    signals = signals if isinstance(signals, Signals) else Signals(signals)
    answer.signals.update(signals)
    answer.agreement = signals.get("agreement", answer.agreement)
    answer.note_drafts(signals.answers)
    return signals


def decide(answer: Answer, gate: Gate) -> Generator[Any, Any, Signals]:
    """Measure as `measure` does, and record how much the gate has the teacher write."""
    signals = yield from measure(answer, gate)
    if not answer.is_teachers:
        answer.amount = gate.decide(signals)
        answer.expected = gate.expectations(signals)
    return signals


def prepared(
    answer: Answer, *, asks_teacher: bool
) -> Generator[Any, Any, AbstractContextManager[Any]]:
    """Have the student check the prompt before a teacher is paid, and prefill it ahead.

    It prefills only if the teacher will be asked for a beginning. The result is a context that
    holds the prompt's KV cache.
    """
    if answer.is_teachers:
        return nullcontext()
    work = StudentStep(answer.settings).prepare(answer.messages, asks_teacher=asks_teacher)
    context: AbstractContextManager[Any]
    try:
        answer.reserved, context = yield work
    except Exception as error:  # noqa: BLE001  whatever a student raises
        leave_to_teacher(answer, error)
        return nullcontext()
    return context


def leave_to_teacher(answer: Answer, error: Exception) -> None:
    """Have the teacher answer the whole turn, if it may replace a failing student.

    The answer's settings lose the student. If the teacher may not, the error is raised.
    """
    settings = answer.settings
    is_final = isinstance(error, NoRoom) or isinstance(error.__cause__, OutOfTime)
    if is_final or answer.teacher_failed or not settings.teacher_may_answer:
        raise error
    answer.fallback = bounded(f"the student failed: {type(error).__name__}: {error}")
    alone = replace(settings.strategy, roles=frozenset({"teacher"}), student_may_answer=False)
    answer.settings = replace(settings, strategy=alone, limit=settings.max_tokens)
    answer.reserved = 0


def ask_teacher(answer: Answer) -> CallSteps:
    """Ask the teacher, within the settings' limit. The answer's ``outcome`` is filled.

    Raises:
        TeacherError: If the teacher fails, and the student may not answer instead.
        BudgetExceeded: If the call could pass a budget, and the student may not answer instead.
    """
    step, outcome = TeacherStep(answer.settings), answer.outcome
    context = step.prompt_context(answer.messages)
    error: Exception | None = None
    prompt = PreparedPrompt(messages=answer.messages)
    if answer.settings.teacher_prompt is not None:
        try:
            prompt = yield step.prepare(answer.messages, context)
        except TeacherError as caught:  # there was no time to make it
            error = caught
        else:
            outcome.prompt_share = prompt_share(answer.messages, prompt)
    if error is None:
        try:
            with step.guarded():
                yield from step.run(
                    prompt, outcome, streaming=answer.streaming, reserved=answer.reserved
                )
        except Exception as caught:  # noqa: BLE001  whatever a provider raises
            error = hide_in_error(caught, secrets_of(answer.settings.teacher))
            outcome.keep_shown()
            if is_refusal(error):
                outcome.refusal = bounded(str(error))
    answer.teacher_failed = bool(error or outcome.refusal)
    answer.add_usage(context.student_usage)
    answer.fallback = _fallback(answer.settings, error) or answer.fallback or outcome.fallback


def _fallback(settings: CallSettings, error: Exception | None) -> str | None:
    """Return why the student answers alone, or raise the error of the teacher's call."""
    if error is None:
        return None
    may = settings.strategy.student_may_answer
    if isinstance(error, BudgetExceeded):
        if error.student_may_answer and may:
            return f"BudgetExceeded: {error}"
        raise error
    may = may and not StudentStep(settings).lacks_demanded_tool
    if is_refusal(error):
        if settings.on_refusal == "student" and may:
            return bounded(f"the teacher refused: {error}")
        raise refused(error)
    if settings.fall_back and may:
        return bounded(f"{type(error).__name__}: {error}")
    failure = teacher_error(error)
    if failure is error:
        raise error
    raise failure from error


def show_teacher(answer: Answer) -> CallSteps:
    """Show the teacher's output that has not been shown yet: text, or a tool call."""
    outcome = answer.outcome
    if reply := outcome.tool_reply:
        if outcome.shown and (new := leading_text(reply)[len(outcome.shown) :]):
            yield from outcome.show(new, reply)
        yield tool_call_chunk_of(reply, rest_of(reply, outcome.shown))
    elif outcome.guidance and (new := outcome.guidance.text[len(outcome.shown) :]):
        yield text_chunk(new, outcome.block)


def ask_student(answer: Answer) -> CallSteps:
    """Have the student finish the answer, if the teacher has left it something to write.

    Raises:
        StudentError: If the student fails, and the teacher may not answer instead.
    """
    settings, outcome = answer.settings, answer.outcome
    if outcome.tool_reply or answer.is_teachers:
        return
    guidance = outcome.guidance
    in_answer = outcome.tokens if guidance is None or guidance.dropped is None else 0
    if answer.in_answer is not None:
        in_answer = answer.in_answer
    elif guidance and not guidance.complete and outcome.calls == 1 and settings.limit:
        in_answer = min(in_answer, settings.limit)  # more was cut away
    step, written = StudentStep(settings), list[str]()
    call = step.model_call(answer.messages, guidance, in_answer, streaming=answer.streaming)
    if call is None:
        return
    begun = guidance.text if guidance else ""
    try:
        votes = settings.samples > 1 and not step.tools
        if votes and (yield from _voted(answer, step, call, begun)):
            return
        answer.reply = yield from step.write(call, begun, written, outcome.block)
    except Exception as error:  # noqa: BLE001  another client's, too
        failure: Exception = error
        if not isinstance(error, GKTError):
            failure = provider_error(error, StudentError, "student")
            failure.__cause__ = error
        leave_to_teacher(answer, failure)
        if not answer.streaming:
            yield retraction()
        # Shown text cannot be taken back, so the teacher's answer follows it.
        shown = "".join([begun, *written]) if answer.streaming else ""
        answer.outcome = replace(outcome, guidance=None, fallback=None, shown=shown)
        yield from ask_teacher(answer)
        yield from show_teacher(answer)


def _voted(
    answer: Answer, step: StudentStep, call: ModelCall, begun: str
) -> Generator[Any, Any, bool]:
    """Have the student write several times and show the most common answer, if there is one."""
    settings = answer.settings
    replies = yield step.sampled(call, settings.samples)
    shown = (shown_reply(step.student, reply, begun) for reply in replies)
    replies = [received(settings, reply, "student") for reply in shown]
    answer.note_drafts(replies)
    earlier = begun_text(answer.messages) or ""
    result = vote(replies, settings.answer_of, begun=f"{earlier}{begun}")
    answer.agreement = result.agreement
    if result.winner is None:
        answer.vote_fallback = (
            f"none of {len(replies)} answers could be read as answer_of={settings.answer_of!r}; "
            "the student answered once more, without a vote"
        )
        return False
    yield from show_reply(answer, result.winner, begun)
    return True


def show_reply(answer: Answer, reply: AIMessage, begun: str = "") -> CallSteps:
    """Show a reply that the student has already written, as the end of the answer.

    The answer has counted it. ``begun`` is the guidance that it continues, which has been shown.
    """
    answer.take(reply)
    yield from StudentStep(answer.settings).show(reply, begun, answer.outcome.block)


def unshown(steps: CallSteps) -> CallSteps:
    """Run steps without showing their text, such as a draft that may be dropped."""
    with closing(steps):
        try:
            step = next(steps)
            while True:
                if isinstance(step, ChatGenerationChunk):
                    step = steps.send(None)
                    continue
                try:
                    result = yield step
                except Exception as error:  # noqa: BLE001  the steps decide what it means
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return
