"""What the scheduler knows of a request that OpenVINO runs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import TextConstraint

SEEDS = 2**32
# OpenVINO's cache keeps whole blocks: what is prefilled of another one is computed twice.
BLOCK = 32


@dataclass(eq=False, kw_only=True)
class OpenVINOState(RequestState):
    """A request, and what OpenVINO knows of it.

    Attributes:
        handle: OpenVINO's own handle, while it runs there.
        written: Ids of the answer so far.
        refused: Bytes that its constraint refused as the next token.
        exact: Whether only one token is asked for, which the constraint cannot refuse.
        seed: Of its own generator.
        restarts: How often it was given to OpenVINO.
        log_probs: Of its tokens. None if nobody wants them.
    """

    handle: Any = None
    written: list[int] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    exact: bool = False
    seed: int = field(default_factory=lambda: secrets.randbelow(SEEDS))
    restarts: int = 0
    log_probs: list[float] | None = None

    @cached_property
    def constraint(self) -> TextConstraint | None:
        """What its tokens are checked by; kept, as asking for the kind is slow."""
        constraint = self.request.constraint
        return constraint if isinstance(constraint, TextConstraint) else None

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
