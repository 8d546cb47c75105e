"""A schema, and an answer that keeps to it."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class Kind(str, Enum):
    """Kinds of steps."""

    plus = "plus"
    minus = "minus"


class Step(BaseModel):
    """One step."""

    kind: Kind
    amount: int = Field(ge=0, le=99)
    note: str | None = None


class Work(BaseModel):
    """A worked answer."""

    name: str
    steps: list[Step]
    answer: int


class WorkDict(TypedDict):
    """A worked answer."""

    name: str
    answer: int


TEXT = '{"name": "Tom", "steps": [{"kind": "plus", "amount": 12}], "answer": 30}'
