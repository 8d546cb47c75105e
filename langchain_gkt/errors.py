"""Errors of the package, and checks of arguments that name the field and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import ValidationError


class TeacherError(RuntimeError):
    """The teacher's call failed or gave nothing to guide with.

    The provider's own exception, if there is one, is the ``__cause__``.
    """


class StudentError(RuntimeError):
    """The student could not be loaded or could not continue."""


class BudgetExceeded(RuntimeError):
    """The teacher was not asked, because its call could have passed a budget.

    Attributes:
        go_on: Whether the student may answer alone instead.
    """

    def __init__(self, message: str, *, go_on: bool = False) -> None:
        """Say what was passed.

        Args:
            message: What, by how much, and what to do.
            go_on: Whether the student may answer alone instead.
        """
        super().__init__(message)
        self.go_on = go_on


def refuse_empty(messages: Sequence[BaseMessage]) -> None:
    """Refuse an empty prompt before a teacher is paid for it.

    Args:
        messages: The conversation.

    Raises:
        ValueError: If there is no text in it.
    """
    if not any(
        message.content if isinstance(message.content, list) else message.content.strip()
        for message in messages
    ):
        raise ValueError("messages must hold some text to answer; the prompt is empty")


def teacher_error(error: Exception) -> Exception:
    """Make the error to raise for a failed teacher call.

    Args:
        error: What the provider raised.

    Returns:
        An error that says what failed and what can be done; those of the package as they are.
    """
    if isinstance(error, TeacherError | BudgetExceeded):
        return error
    return TeacherError(
        f"the teacher's call failed: {type(error).__name__}: {error} Check that teacher is "
        "reachable and its key valid, wrap it with with_retry() or with_fallbacks(), or set "
        "on_teacher_error='student' to go on without guidance."
    )


def refuse_unknown(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Refuse arguments that do not exist, naming the nearest that does.

    Args:
        given: Names the caller used.
        known: Names that exist.
        owner: What the arguments belong to, for the message.

    Raises:
        TypeError: If a given name is not known.
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(known)}."
            raise TypeError(f"{owner} got an unknown argument {name!r}; {hint}")


def whole_number(name: str, value: Any, *, least: int, meaning: str = "") -> int:
    """Check that a value is a whole number and not too small.

    Args:
        name: The field's name, for the message.
        value: The value.
        least: The smallest value allowed.
        meaning: What the smallest value means, for the message.

    Returns:
        The value.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        bound = f"{least} ({meaning}) or more" if meaning else f"a whole number, {least} or more"
        raise ValueError(f"{name} must be {bound}, not {value}")
    return value


def explain(error: ValidationError) -> str:
    """Put pydantic's findings into one line, without its links.

    Args:
        error: What pydantic raised.

    Returns:
        The messages, each of which names a field.
    """
    found = []
    for one in error.errors(include_url=False):
        cause = one.get("ctx", {}).get("error")
        place = ".".join(map(str, one["loc"]))
        found.append(str(cause) if cause else f"{place}: {one['msg']}")
    return "; ".join(found)
