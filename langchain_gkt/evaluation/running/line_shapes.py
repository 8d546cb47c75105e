"""What a line of a run folder must hold, by its type; other types are left to later releases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from langchain_gkt.evaluation.running.records import Answer, TeacherReply
from langchain_gkt.evaluation.validation import plain_error


class _Line(TypedDict):
    type: str


class _AnswerLine(TypedDict):
    answer: dict[str, Any]


class _ReplyLine(TypedDict):
    row: str
    mode: str
    reply: dict[str, Any]


class _FailureLine(TypedDict):
    row: str
    mode: str
    length: int | None
    error: str


class _CutLine(TypedDict):
    row: str
    method: str


class _CheckLine(_CutLine):
    length: int | None


_ANY = TypeAdapter(_Line)
_SHAPES: dict[str, TypeAdapter[Any]] = {
    "answer": TypeAdapter(_AnswerLine),
    "reply": TypeAdapter(_ReplyLine),
    "failure": TypeAdapter(_FailureLine),
    "cut": TypeAdapter(_CutLine),
    "check": TypeAdapter(_CheckLine),
}
_RECORDS: dict[str, Callable[[Any], Any]] = {
    "answer": Answer.from_dict,
    "reply": TeacherReply.from_dict,
}


def check_line(line: Any) -> None:
    """Refuse a line that cannot be read.

    Args:
        line: What its JSON holds.

    Raises:
        ValueError: If a field is missing or of the wrong type.
    """
    kind = "line"
    try:
        _ANY.validate_python(line)
        kind = line["type"]
        if kind in _SHAPES:
            _SHAPES[kind].validate_python(line)
    except ValidationError as error:
        raise ValueError(str(plain_error(error, kind))) from None
    if kind in _RECORDS:
        _RECORDS[kind](line[kind])
