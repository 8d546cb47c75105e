"""What a policy says of tool calls is checked before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_gkt.errors import nearest
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.students.protocol import Student
from langchain_gkt.teachers.tools import tool_names


def check_tool_policy(
    policy: GuidancePolicy, student: Student, tools: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Refuse a policy that a student or the bound tools do not fit.

    Args:
        policy: The policy.
        student: The student.
        tools: The tools that the teacher may call, in OpenAI's form. None if they are not known.

    Raises:
        ValueError: If the student cannot call tools, or a tool of the list is not bound.
        ImportError: If llguidance (extra ``structured``) is missing.
    """
    if policy.tools != "teacher":
        if not student.knows_tools:
            raise ValueError(
                "GuidancePolicy.tools=AgreementGate(...) needs a student that calls tools, and the "
                f"chat template of this {type(student.chat_model).__name__} has no place for "
                "them; use another student, or tools='teacher'"
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
