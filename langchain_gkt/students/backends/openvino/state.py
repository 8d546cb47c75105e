"""The scheduler's state of a request that OpenVINO runs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import TextConstraint
from langchain_gkt.students.engine.sampling import TokenProbabilityRecorder

SEEDS = 2**32
# OpenVINO's cache keeps whole blocks. Prefilled tokens beyond them are computed twice.
BLOCK = 32


@dataclass(eq=False, kw_only=True)
class OpenVINOState(RequestState):
    """A request, and its state in OpenVINO."""

    handle: Any = None  # OpenVINO's own, while it runs there
    written: list[int] = field(default_factory=list)  # ids of the answer so far
    refused: list[bytes] = field(default_factory=list)  # what its constraint refused to come next
    exact: bool = False  # it wants one token only, which the constraint cannot refuse
    seed: int = field(default_factory=lambda: secrets.randbelow(SEEDS))
    restarts: int = 0  # how often it was given to OpenVINO

    @cached_property
    def constraint(self) -> TextConstraint | None:
        """The constraint on its tokens. Kept, because asking for the kind is slow."""
        constraint = self.request.constraint
        return constraint if isinstance(constraint, TextConstraint) else None

    @property
    def recorder(self) -> TokenProbabilityRecorder | None:
        """Records how likely its tokens were. None if nobody wants to know."""
        constraint = self.request.constraint
        return constraint if isinstance(constraint, TokenProbabilityRecorder) else None

    @cached_property
    def blocks(self) -> list[int]:
        """One number for each whole block of its ids and all that comes before it."""
        return block_numbers(self.ids)


def block_numbers(ids: list[int]) -> list[int]:
    """Return one number for each whole block of ids and all that comes before it."""
    numbers, before = [], 0
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        before = hash((before, *ids[start : start + BLOCK]))
        numbers.append(before)
    return numbers
