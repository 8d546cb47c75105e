"""Tool calls by agreement: the student makes a turn's calls if enough of its samples agree."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call

from langchain_gkt.chain.drivers import BlockingWork
from langchain_gkt.chain.messages import tool_call_chunk_of
from langchain_gkt.chain.steps.received import received
from langchain_gkt.chain.steps.student_step import StudentStep
from langchain_gkt.chain.strategies.answer import Answer
from langchain_gkt.chain.strategies.steps import leave_to_teacher
from langchain_gkt.gates import AgreementGate
from langchain_gkt.gates.tool_fit import tool_fit, tool_fit_question
from langchain_gkt.students.call_voting import CallVote, vote_on_calls


def student_calls(answer: Answer) -> Generator[Any, Any, bool]:
    """Have the student make the turn, if the policy lets its samples decide and they agree.

    If they agree that no tool is called, or they do not agree and the student says that none fits,
    the answer's settings say so, and the turn is answered like any other.

    Args:
        answer: The answer. It counts the samples.

    Returns:
        Whether the turn is made. If not, it is answered as without a vote.

    Raises:
        StudentError: If the student fails, and the teacher may not answer instead.
    """
    settings = answer.settings
    gate, choice = settings.tool_gate, settings.tool_choice
    if gate is None:
        return False
    if choice == "none" or choice == {"type": "none"}:
        answer.settings = replace(settings, is_text_turn=True)
        return False
    if StudentStep(settings).lacks_demanded_tool:  # it is the teacher's, even if the samples agree
        return False
    vote = yield from _voted(answer, gate)
    if vote is None:
        return False
    if gate.decide({"agreement": vote.agreement}) != "none":
        if (yield from _fits_no_tool(answer, gate)):
            answer.settings = replace(settings, is_text_turn=True)
        return False
    if not vote.calls:
        answer.settings = replace(settings, is_text_turn=True)
        return False
    if {call["name"] for call in vote.calls} & {*settings.policy.teacher_tools}:
        return False
    reply = _with_calls(vote)
    answer.amount = "none"
    answer.take(reply)
    yield tool_call_chunk_of(reply, reply.content)
    return True


def _voted(answer: Answer, gate: AgreementGate) -> Generator[Any, Any, CallVote | None]:
    """Have the student write the turn several times. None if the teacher takes over."""
    settings = answer.settings
    try:
        replies = yield StudentStep(settings).sampled_turns(answer.messages, gate)
    except Exception as error:  # noqa: BLE001  whatever a student raises
        leave_to_teacher(answer, error)
        return None
    replies = [received(settings, reply, "student") for reply in replies]
    answer.note_drafts(replies)
    vote = vote_on_calls(
        replies,
        settings.tools,
        choice=settings.tool_choice,
        parallel=settings.tool_arguments.get("parallel_tool_calls") is not False,
    )
    answer.agreement = answer.signals["tool_agreement"] = vote.agreement
    return vote


def _fits_no_tool(answer: Answer, gate: AgreementGate) -> Generator[Any, Any, bool]:
    """Have the student say whether a tool fits the request, if the gate requires it."""
    settings = answer.settings
    if gate.tool_fit_below is None or settings.forces_tool:
        return False
    if (question := tool_fit_question(answer.messages, settings.tools)) is None:
        return False
    student = StudentStep(settings).student
    try:
        tokens = yield BlockingWork(
            partial(student.first_tokens, question), partial(student.afirst_tokens, question)
        )
    except Exception as error:  # noqa: BLE001  whatever a student raises
        leave_to_teacher(answer, error)
        return False
    if (fit := tool_fit(tokens)) is None:
        return False
    answer.signals["tool_fit"] = fit
    return fit < gate.tool_fit_below


def _with_calls(vote: CallVote) -> AIMessage:
    """Return the reply that a vote has chosen, with its calls as calls."""
    reply: Any = vote.reply
    ids = [call["id"] for call in reply.tool_calls]
    ids += [f"call_{uuid.uuid4().hex[:24]}" for _ in (vote.calls or [])[len(ids) :]]
    return AIMessage(
        # A call that was written as text is not text to show.
        content=reply.text if reply.tool_calls else "",
        tool_calls=[
            tool_call(name=call["name"], args=call["arguments"], id=own_id)
            for call, own_id in zip(vote.calls or [], ids, strict=True)
        ],
        usage_metadata=reply.usage_metadata,
        response_metadata={**reply.response_metadata, "finish_reason": "tool_calls"},
    )
