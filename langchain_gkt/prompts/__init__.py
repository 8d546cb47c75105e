"""Teacher prompts: what of a conversation the teacher is shown."""

from __future__ import annotations

from langchain_gkt.prompts.base import (
    PreparedPrompt,
    PromptContext,
    TeacherPrompt,
    TeacherPromptSequence,
)
from langchain_gkt.prompts.exemplars import mark_exemplars
from langchain_gkt.prompts.ready_made import (
    InstructTeacher,
    LastTurns,
    SummarizeOlder,
    WithoutExemplars,
)

__all__ = [
    "InstructTeacher",
    "LastTurns",
    "PreparedPrompt",
    "PromptContext",
    "SummarizeOlder",
    "TeacherPrompt",
    "TeacherPromptSequence",
    "WithoutExemplars",
    "mark_exemplars",
]
