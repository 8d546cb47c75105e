"""What a line of a run folder must hold, by its type. Other types are left to later releases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from langchain_gkt.evaluation.running.records import Answer, TeacherReply
from langchain_gkt.evaluation.validation import plain_error

_FIELDS: dict[str, dict[str, Any]] = {
    "line": {"type": str},
    "answer": {"answer": dict[str, Any]},
    "reply": {"row": str, "mode": str, "reply": dict[str, Any]},
    "failure": {"row": str, "mode": str, "length": int | None, "error": str},
    "cut": {"row": str, "method": str},
    "check": {"row": str, "method": str, "length": int | None},
}
_create: Any = create_model
_SHAPES: dict[str, type[BaseModel]] = {
    kind: _create(kind, **{name: (form, ...) for name, form in fields.items()})
    for kind, fields in _FIELDS.items()
}
_RECORDS: dict[str, Callable[[Any], Any]] = {
    "answer": Answer.from_dict,
    "reply": TeacherReply.from_dict,
}


def check_line(line: Any) -> None:
    """Refuse a line that cannot be read.

    Raises:
        ValueError: If a field is missing or of the wrong type.
    """
    kind = "line"
    try:
        _SHAPES[kind].model_validate(line)
        kind = line["type"]
        if kind in _SHAPES:
            _SHAPES[kind].model_validate(line)
    except ValidationError as error:
        raise ValueError(str(plain_error(error, kind))) from None
    if kind in _RECORDS:
        _RECORDS[kind](line[kind])
