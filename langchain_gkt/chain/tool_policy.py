"""Checks a policy's tool rules before anything is requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.tools import BaseTool

from langchain_gkt.errors import ConfigurationError, nearest
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.structured_output.tools import in_openai_form
from langchain_gkt.students.protocol import Student
from langchain_gkt.teachers.tools import tool_names

MARK = "gkt_tools"
"""The key of a tool's metadata that names who may call it: ``teacher``."""


def marked_tools(tools: Sequence[Any]) -> list[str]:
    """Return the names of the tools whose own metadata leaves their calls to the teacher.

    Only a ``BaseTool`` can be marked. An unknown mark is refused.
    """
    names = []
    for tool in tools:
        mark = (tool.metadata or {}).get(MARK) if isinstance(tool, BaseTool) else None
        if mark not in (None, "teacher"):
            raise ConfigurationError(
                f"metadata[{MARK!r}] of the tool {tool.name!r} must be 'teacher', not {mark!r}"
            )
        names += [tool.name] if mark else []
    return names


def reserving(policy: GuidancePolicy, arguments: Mapping[str, Any]) -> GuidancePolicy:
    """Add a call's marked tools to those that only the teacher may call."""
    tools = arguments.get("tools") or ()
    marked = [*marked_tools(tools), *(arguments.get("marked_tools") or ())]
    # Tools that are bound again replace the earlier ones, but the old marks stay.
    bound = {*tool_names([in_openai_form(tool) for tool in tools])} if marked else set()
    names = dict.fromkeys([*policy.teacher_tools, *(name for name in marked if name in bound)])
    return replace(policy, teacher_tools=tuple(names)) if marked else policy


def check_tool_policy(
    policy: GuidancePolicy, student: Student, tools: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Refuse a policy that does not fit the student or the bound tools, if these are known.

    Raises:
        ValueError: If the student cannot call tools, or a tool of the list is not bound. Or if the
            gate asks for token probabilities that the student does not report.
        ImportError: If llguidance (extra ``structured``) is missing.
    """
    if policy.tools != "teacher":
        if not student.knows_tools:
            raise ValueError(
                "GuidancePolicy.tools=AgreementGate(...) needs a student that calls tools, and the "
                f"chat template of this {type(student.chat_model).__name__} has no place for "
                "them; use another student, or tools='teacher'"
            )
        if policy.tools.tool_fit_below is not None and student.first_token_detail == "none":
            raise ValueError(
                "AgreementGate.tool_fit_below needs a student that reports the probabilities of "
                f"its tokens, and this {type(student.chat_model).__name__} does not; use a "
                "HuggingFaceStudent, or leave it out"
            )
        import langchain_gkt.structured_output.grammar  # noqa: F401  it names the missing extra
    if tools is None:
        return
    names = tool_names(tools)
    for name in policy.teacher_tools:
        if name not in names:
            raise ValueError(
                f"GuidancePolicy.teacher_tools names {name!r}, which is none of the bound tools; "
                f"{nearest(name, names)}"
            )
