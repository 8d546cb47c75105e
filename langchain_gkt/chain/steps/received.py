"""Checks a model's reply before anything relies on it."""

from __future__ import annotations

import json

from langchain_core.messages import AIMessage
from langchain_core.messages.tool import invalid_tool_call

from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.metadata import Role
from langchain_gkt.teachers.replies import believed


def received(settings: CallSettings, reply: AIMessage, role: Role) -> AIMessage:
    """Remove impossible usage and halves of characters from a reply, with one warning."""
    reply, refused = believed(reply)
    if refused:
        settings.warn_once(
            f"odd-usage-{role}",
            f"the {role} reported usage that cannot be true ({refused}), which is not believed; "
            "what it bills is not known. Fix its server.",
        )
    return reply


def without_reserved_calls(settings: CallSettings, reply: AIMessage) -> AIMessage:
    """Make invalid, in a student's reply, the calls of tools that only the teacher may call.

    A student may have read about them in the conversation. No agent runs an invalid call.
    """
    reserved = {*settings.policy.teacher_tools}
    refused = [call for call in reply.tool_calls if call["name"] in reserved]
    if not refused:
        return reply
    error = "the teacher alone may call this tool"
    invalid = [
        invalid_tool_call(
            name=call["name"], args=json.dumps(call["args"]), id=call["id"], error=error
        )
        for call in refused
    ]
    return AIMessage(
        content=reply.content,
        tool_calls=[call for call in reply.tool_calls if call not in refused],
        invalid_tool_calls=[*reply.invalid_tool_calls, *invalid],
        usage_metadata=reply.usage_metadata,
        response_metadata=reply.response_metadata,
    )
