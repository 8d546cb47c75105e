"""Let a small local model answer like a big cloud model: Guidance-based Knowledge Transfer.

Importing this package imports neither torch nor transformers; loading a student does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Here alone; the package's metadata is made of it.
__version__ = "0.1.0"

if TYPE_CHECKING:
    from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
    from langchain_gkt.chain.reliability.breaker import CircuitBreaker
    from langchain_gkt.costs import (
        Budget,
        CostReport,
        CostTracker,
        MachineTime,
        Price,
        track_costs,
    )
    from langchain_gkt.errors import (
        BudgetExceeded,
        ConfigurationError,
        GKTError,
        GuidanceError,
        StudentError,
        TeacherError,
    )
    from langchain_gkt.guidance import Guidance, GuidancePolicy
    from langchain_gkt.metadata import GKTMetadata
    from langchain_gkt.prompts import (
        InstructTeacher,
        LastTurns,
        PreparedPrompt,
        SummarizeOlder,
        TeacherPrompt,
        WithoutExemplars,
        mark_exemplars,
    )
    from langchain_gkt.students import as_student, remote_student
    from langchain_gkt.students.huggingface import HuggingFaceStudent

_HOMES = {
    "Budget": "costs",
    "BudgetExceeded": "errors",
    "CircuitBreaker": "chain.reliability.breaker",
    "ConfigurationError": "errors",
    "CostReport": "costs",
    "CostTracker": "costs",
    "GKTError": "errors",
    "GKTMetadata": "metadata",
    "Guidance": "guidance",
    "GuidanceError": "errors",
    "GuidancePolicy": "guidance",
    "GuidedKnowledgeTransferChain": "chain",
    "HuggingFaceStudent": "students.huggingface",
    "InstructTeacher": "prompts",
    "LastTurns": "prompts",
    "MachineTime": "costs",
    "PreparedPrompt": "prompts",
    "Price": "costs",
    "StudentError": "errors",
    "SummarizeOlder": "prompts",
    "TeacherError": "errors",
    "TeacherPrompt": "prompts",
    "WithoutExemplars": "prompts",
    "as_student": "students",
    "mark_exemplars": "prompts",
    "remote_student": "students",
    "track_costs": "costs",
}

__all__ = [
    "Budget",
    "BudgetExceeded",
    "CircuitBreaker",
    "ConfigurationError",
    "CostReport",
    "CostTracker",
    "GKTError",
    "GKTMetadata",
    "Guidance",
    "GuidanceError",
    "GuidancePolicy",
    "GuidedKnowledgeTransferChain",
    "HuggingFaceStudent",
    "InstructTeacher",
    "LastTurns",
    "MachineTime",
    "PreparedPrompt",
    "Price",
    "StudentError",
    "SummarizeOlder",
    "TeacherError",
    "TeacherPrompt",
    "WithoutExemplars",
    "__version__",
    "as_student",
    "mark_exemplars",
    "remote_student",
    "track_costs",
]


def __getattr__(name: str) -> Any:
    """Import a public name's room on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
