"""An advisor's view of an agent's conversation, and the reasons for advice in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import merge_message_runs
from langchain_core.tools import StructuredTool
from typing_extensions import TypedDict

from langchain_gkt.students.prompting import tools_as_text

AdviceKind = Literal["plan", "tool_error", "repeated_call", "low_agreement", "asked"]
"""Why the teacher was asked for advice."""

ROLE = (
    "You advise an assistant that is less able than you. It alone talks to the user and calls the "
    "tools. Be brief and concrete: the assistant reads nothing but your words."
)
REQUESTS: dict[AdviceKind, str] = {
    "plan": "Write a plan in short numbered steps by which the assistant can do what the user "
    "asks. Name the tool of each step. Do not do the steps.",
    "tool_error": "The last two calls of tools have failed. Say what is wrong with them and what "
    "the assistant should do next.",
    "repeated_call": "The assistant has made the same call again. Say what it should do instead.",
    "low_agreement": "The assistant is not sure what to do next. Say which step is right.",
    "asked": "The assistant asks you: {question}",
}
_ASK_ADVISOR = "ask_advisor"
_SAID_ENOUGH = "The advisor has said enough. Decide by yourself."
"""The tool's text, and what remains of it if the advisor may not answer."""


class Advice(TypedDict):
    """One piece of advice, as the agent's state keeps it.

    Attributes:
        kind: Why the teacher was asked.
        text: The teacher's text. Empty if it could not be asked.
        question: The id of the user's message that the agent works on.
        after: The id of the last message before it.
    """

    kind: AdviceKind
    text: str
    question: str
    after: str


def advisor_messages(messages: Sequence[BaseMessage], tools: str, asked: str) -> list[BaseMessage]:
    """Write a conversation as text, which any teacher reads without the agent's tools.

    ``tools`` holds their names and descriptions, and ``asked`` the request to the teacher.
    """
    role = f"{ROLE}\nIts tools:\n{tools}" if tools else ROLE
    shown = tools_as_text([m for m in messages if not isinstance(m, SystemMessage)])
    rules = "\n\n".join(str(m.text) for m in messages if isinstance(m, SystemMessage))
    if rules:
        role = f"{role}\nIt was told:\n{rules}"
    return [SystemMessage(role), *merge_message_runs([*shown, HumanMessage(asked)])]


def question_id(state: Any) -> str:
    """Return the id of the user's last question.

    If that is already in a summary, it is the question of the last advice.
    """
    if asked := [m.id for m in state["messages"] if _is_question(m)]:
        return str(asked[-1])
    advice = state.get("advice") or []
    return advice[-1]["question"] if advice else ""


def given_advice(state: Any, kind: AdviceKind | None = None) -> list[Advice]:
    """Return the advice on the current question, of one kind or of any."""
    question = question_id(state)
    entries = [entry for entry in state.get("advice") or [] if entry["question"] == question]
    return [entry for entry in entries if kind in (None, entry["kind"])]


def last_id(messages: Sequence[BaseMessage]) -> str:
    """Return the id of the last message. Empty without one."""
    return str(messages[-1].id) if messages else ""


def has_failed_twice(messages: Sequence[BaseMessage]) -> bool:
    """Whether the last two tool calls have failed, and it is the student's turn."""
    results = [m for m in recent(messages) if isinstance(m, ToolMessage)][-2:]
    is_new = bool(messages) and isinstance(messages[-1], ToolMessage)
    return is_new and len(results) == 2 and all(m.status == "error" for m in results)


def repeats_itself(messages: Sequence[BaseMessage]) -> bool:
    """Whether the last calls repeat earlier ones, and it is the student's turn."""
    turns = [m for m in recent(messages) if isinstance(m, AIMessage) and m.tool_calls]
    if not turns or not isinstance(messages[-1], ToolMessage):
        return False
    *earlier, last = ({_key(call) for call in turn.tool_calls} for turn in turns)
    return any(last <= calls for calls in earlier)


def recent(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """Return the messages after the user's last question."""
    places = [place for place, message in enumerate(messages) if _is_question(message)]
    return messages[places[-1] :] if places else messages


def _is_question(message: BaseMessage) -> bool:
    is_summary = message.additional_kwargs.get("lc_source") == "summarization"
    return isinstance(message, HumanMessage) and not is_summary


def _key(call: Any) -> str:
    return json.dumps([call["name"], call["args"]], sort_keys=True, default=str)


def asking_tool() -> StructuredTool:
    """Make the tool by which a student asks. The middleware replaces its text by the answer."""

    def ask(question: str) -> str:
        return _SAID_ENOUGH

    return StructuredTool.from_function(
        ask,
        name=_ASK_ADVISOR,
        description="Ask an experienced advisor what to do, if you do not know it yourself.",
    )


def unanswered(messages: Sequence[BaseMessage]) -> list[tuple[ToolMessage, str]]:
    """Return the tool's messages that no answer has replaced yet, each with its question."""
    calls = [call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    questions = {call["id"]: str(call["args"].get("question")) for call in calls}
    return [
        (m, questions[m.tool_call_id])
        for m in messages
        if isinstance(m, ToolMessage)
        and m.name == _ASK_ADVISOR
        and m.text == _SAID_ENOUGH
        and m.tool_call_id in questions
    ]


def answered(message: ToolMessage, text: str) -> ToolMessage:
    """Replace the tool's text by an answer, which is empty if there is none."""
    said = text or "The advisor cannot be reached. Decide by yourself."
    return message.model_copy(update={"content": said})
