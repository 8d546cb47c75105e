"""Teacher prompts: the part of a conversation that the teacher sees."""

from __future__ import annotations

from langchain_gkt.prompts.base import (
    PreparedPrompt,
    PromptContext,
    TeacherPrompt,
    TeacherPromptSequence,
)
from langchain_gkt.prompts.exemplars import mark_exemplars
from langchain_gkt.prompts.hints import HintPrompt
from langchain_gkt.prompts.ready_made import (
    InstructTeacher,
    KeepPrefix,
    LastTurns,
    SummarizeOlder,
    WithoutExemplars,
)
from langchain_gkt.prompts.redaction import Redact

__all__ = [
    "HintPrompt",
    "InstructTeacher",
    "KeepPrefix",
    "LastTurns",
    "PreparedPrompt",
    "PromptContext",
    "Redact",
    "SummarizeOlder",
    "TeacherPrompt",
    "TeacherPromptSequence",
    "WithoutExemplars",
    "mark_exemplars",
]
