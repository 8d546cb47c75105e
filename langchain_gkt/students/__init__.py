"""Students: local models that continue an answer that another model began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_gkt.students.conversion import STUDENT_VARIABLE, as_student
from langchain_gkt.students.remote import remote_student

if TYPE_CHECKING:
    from langchain_gkt.students.huggingface import HuggingFaceStudent

__all__ = ["STUDENT_VARIABLE", "HuggingFaceStudent", "as_student", "remote_student"]


def __getattr__(name: str) -> Any:
    """Import `HuggingFaceStudent`, and with it torch, on first use."""
    if name == "HuggingFaceStudent":
        from langchain_gkt.students.huggingface import HuggingFaceStudent

        return HuggingFaceStudent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
