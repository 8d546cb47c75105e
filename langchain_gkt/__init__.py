"""Let a small local model answer like a big cloud model: Guidance-based Knowledge Transfer.

Importing this package imports neither torch nor transformers. Loading a student does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The only place of the version. The package's metadata reads it.
__version__ = "0.1.0"

if TYPE_CHECKING:
    from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
    from langchain_gkt.chain.reliability import CircuitBreaker as CircuitBreaker
    from langchain_gkt.costs import BillingScenario as BillingScenario
    from langchain_gkt.costs import Budget as Budget
    from langchain_gkt.costs import CachedPrefix as CachedPrefix
    from langchain_gkt.costs import CostReport, CostTracker, Price, track_costs
    from langchain_gkt.costs import MachineTime as MachineTime
    from langchain_gkt.errors import BudgetExceeded as BudgetExceeded
    from langchain_gkt.errors import ConfigurationError as ConfigurationError
    from langchain_gkt.errors import GKTError
    from langchain_gkt.errors import GuidanceError as GuidanceError
    from langchain_gkt.errors import StudentError as StudentError
    from langchain_gkt.errors import TeacherError as TeacherError
    from langchain_gkt.gates import AgreementGate, ConfidenceGate, HopelessGate, LearnedGate
    from langchain_gkt.guidance import Guidance, GuidancePolicy
    from langchain_gkt.metadata import GKTMetadata as GKTMetadata
    from langchain_gkt.prompts import HintPrompt as HintPrompt
    from langchain_gkt.prompts import InstructTeacher as InstructTeacher
    from langchain_gkt.prompts import KeepPrefix as KeepPrefix
    from langchain_gkt.prompts import LastTurns as LastTurns
    from langchain_gkt.prompts import PreparedPrompt as PreparedPrompt
    from langchain_gkt.prompts import SummarizeOlder as SummarizeOlder
    from langchain_gkt.prompts import TeacherPrompt as TeacherPrompt
    from langchain_gkt.prompts import WithoutExemplars as WithoutExemplars
    from langchain_gkt.prompts import mark_exemplars as mark_exemplars
    from langchain_gkt.students import as_student, remote_student
    from langchain_gkt.students.huggingface import HuggingFaceStudent
    from langchain_gkt.teachers.recorded import RecordedTeacher

_PUBLIC = {
    "chain": "GuidedKnowledgeTransferChain",
    "chain.reliability": "CircuitBreaker",
    "costs": "BillingScenario Budget CachedPrefix CostReport CostTracker MachineTime Price "
    "track_costs",
    "errors": "BudgetExceeded ConfigurationError GKTError GuidanceError StudentError TeacherError",
    "gates": "AgreementGate ConfidenceGate HopelessGate LearnedGate",
    "guidance": "Guidance GuidancePolicy",
    "metadata": "GKTMetadata",
    "prompts": "HintPrompt InstructTeacher KeepPrefix LastTurns PreparedPrompt SummarizeOlder "
    "TeacherPrompt WithoutExemplars mark_exemplars",
    "students": "as_student remote_student",
    "students.huggingface": "HuggingFaceStudent",
    "teachers.recorded": "RecordedTeacher",
}
_HOMES = {name: home for home, names in _PUBLIC.items() for name in names.split()}

# The names that most programs need. Every name of _HOMES can be imported from here, too. Budgets,
# prompts, errors and the circuit breaker are documented in their own modules.
__all__ = [
    "AgreementGate",
    "ConfidenceGate",
    "CostReport",
    "CostTracker",
    "GKTError",
    "Guidance",
    "GuidancePolicy",
    "GuidedKnowledgeTransferChain",
    "HopelessGate",
    "HuggingFaceStudent",
    "LearnedGate",
    "Price",
    "RecordedTeacher",
    "__version__",
    "as_student",
    "remote_student",
    "track_costs",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__, *_HOMES})
