"""What a sweep measures of each question, besides what its gates do."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.messages import BaseMessage

from langchain_gkt.gates.first_tokens import first_token_signals
from langchain_gkt.students.protocol import Student

PROBED = 32
"""Of how many of its own first tokens a sweep asks the student."""


async def measure_first_tokens(student: Student, messages: list[BaseMessage]) -> dict[str, float]:
    """Return how likely the student's first tokens are, and the entropies; none if unknown."""
    if student.first_token_detail == "none":
        return {}
    return first_token_signals(await student.afirst_tokens(messages, tokens=PROBED))


def numbered(name: str, values: Iterable[float]) -> dict[str, float]:
    """Name values in order: ``name_1``, ``name_2`` and so on."""
    return {f"{name}_{place}": value for place, value in enumerate(values, 1)}
