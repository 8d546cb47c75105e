"""The tool by which a student asks its advisor, who answers in the next turn."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import StructuredTool

ASK_ADVISOR = "ask_advisor"
"""The name of the tool."""
_SAID_ENOUGH = "The advisor has said enough. Decide by yourself."
"""The tool's text, and what remains of it if the advisor may not answer."""


def asking_tool() -> StructuredTool:
    """Make the tool. It asks nobody. The middleware replaces its text by the answer."""

    def ask(question: str) -> str:
        return _SAID_ENOUGH

    return StructuredTool.from_function(
        ask,
        name=ASK_ADVISOR,
        description="Ask an experienced advisor what to do, if you do not know it yourself.",
    )


def unanswered(messages: Sequence[BaseMessage]) -> list[tuple[ToolMessage, str]]:
    """Return the student's unanswered questions.

    Returns:
        The tool's messages, each with its question.
    """
    calls = [call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    questions = {call["id"]: str(call["args"].get("question")) for call in calls}
    return [
        (m, questions[m.tool_call_id])
        for m in messages
        if isinstance(m, ToolMessage)
        and m.name == ASK_ADVISOR
        and m.text == _SAID_ENOUGH
        and m.tool_call_id in questions
    ]


def answered(message: ToolMessage, text: str) -> ToolMessage:
    """Replace the tool's text by an answer.

    Args:
        message: The tool's message.
        text: The answer. Empty if there is none.
    """
    said = text or "The advisor cannot be reached. Decide by yourself."
    return message.model_copy(update={"content": said})
