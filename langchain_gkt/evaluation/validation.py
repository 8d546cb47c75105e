"""Turns pydantic's refusals into one sentence with the name of the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

C = TypeVar("C", bound=type)
T = TypeVar("T")

_WRONG_TYPE = "wrong_type"
_TYPES = {
    "int_type": "an int",
    "string_type": "a text",
    "callable_type": "a function of text and row",
}


def wrong_type(message: str) -> PydanticCustomError:
    """Return an error for a validator. A plain TypeError would lose the field's name."""
    return PydanticCustomError(_WRONG_TYPE, "{text}", {"text": message})


def plain_errors(cls: C) -> C:
    """Make a pydantic dataclass raise TypeError and ValueError instead of ValidationError."""
    checked = cls.__init__  # type: ignore[misc]

    @wraps(checked)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            checked(self, *args, **kwargs)
        except ValidationError as error:
            names = [field.name for field in fields(cls) if not field.kw_only]
            raise plain_error(error, cls.__name__, names) from None

    cls.__init__ = init  # type: ignore[misc]
    return cls


def check(adapter: TypeAdapter[T], value: Any, name: str) -> T:
    """Validate one argument of a function."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise plain_error(error, name) from None


def plain_error(
    error: ValidationError, owner: str, positional: Sequence[str] = ()
) -> TypeError | ValueError:
    """Turn the first finding of a validation into an error of one sentence."""
    first = error.errors(include_url=False)[0]
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    place = first["loc"]
    if place and isinstance(place[0], int) and place[0] < len(positional):
        place = (positional[place[0]], *place[1:])
    field, value_type = _path(owner, place), type(value).__name__
    if kind in _TYPES:
        return TypeError(f"{field} must be {_TYPES[kind]}, not {value_type}")
    if kind == _WRONG_TYPE:
        return TypeError(f"{field} {context['text']}")
    if kind == "value_error":
        # Without a field, the check is one of the whole object and names the field itself.
        said = str(context["error"])
        return ValueError(f"{field} {said}" if place else said)
    if kind == "greater_than_equal":
        return ValueError(f"{field} must be {context['ge']} or more, not {value}")
    if kind == "literal_error":
        return ValueError(f"{field} must be {context['expected']}, not {value!r}")
    if kind in ("missing", "missing_argument"):
        return TypeError(f"{field} is missing")
    if kind.startswith("unexpected_"):
        return TypeError(f"{field} is not a field of {owner}")
    return ValueError(f"{field}: {first['msg']}")


def _path(owner: str, place: tuple[int | str, ...]) -> str:
    """Write the place of a value as Python would: ``Task.rows[3]``."""
    if not place:
        return owner
    if place[-1] == "[key]":
        return f"a name in {owner}.{place[0]}"
    return f"{owner}.{place[0]}" + "".join(f"[{part!r}]" for part in place[1:])
