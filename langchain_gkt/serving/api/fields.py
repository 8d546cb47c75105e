"""Errors of a request's fields, and checks for any JSON value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from langchain_gkt.errors import nearest

_MOST_LEVELS = 100


class FieldError(ValueError):
    """A field of a request is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        """Take the place, such as ``messages[2].content``, and the rest of the message."""
        super().__init__(f"{field}{problem}")
        self.field, self.problem = field, problem


def check_values(value: Any) -> None:
    """Refuse values that Python reads as JSON and others do not.

    Raises:
        ValueError: If one is NaN or an infinity, or has more than 100 levels, which would overflow
            the stack.
    """
    level = [value]
    for _ in range(_MOST_LEVELS):
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            raise ValueError("NaN and Infinity are no JSON; send null or a number")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict | list):
                inner += item.values() if isinstance(item, dict) else item
        if not (level := inner):
            return
    raise ValueError(f"the body is nested too deeply; {_MOST_LEVELS} levels are read")


def refuse_unknown_fields(values: Iterable[str], known: Iterable[str], place: str = "") -> None:
    """Raise a `FieldError` for an object's unknown field, with the nearest known one.

    The object's place has a dot after it.
    """
    known = set(known)
    for name in values:
        if name not in known:
            short = name if len(name) <= 100 else f"{name[:100]}..."
            raise FieldError(f"{place}{short}", f" is not known here; {nearest(short, known)}")


def without_nulls(value: Any) -> Any:
    """Drop fields that are null, at any depth. Not for a schema, in which null is a value."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value
