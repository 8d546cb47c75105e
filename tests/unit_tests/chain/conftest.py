from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from langchain_gkt import HuggingFaceStudent


@pytest.fixture(scope="session")
def student(whole_student: HuggingFaceStudent) -> HuggingFaceStudent:
    """It writes a few words: here it matters who writes, and not what."""
    return whole_student.model_copy(update={"max_tokens": 12})
