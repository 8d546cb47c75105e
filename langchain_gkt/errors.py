"""Errors of the package, and checks of arguments that name the field and the fix."""

from __future__ import annotations

import difflib
import json
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic_core import ArgsKwargs

_MAX_TEXT = 2_000
"""Maximum characters of an error's message. A provider's body may be megabytes."""


class GKTError(Exception):
    """The error of the package's models when a call fails. The original is the ``__cause__``.

    Attributes:
        hint: What to do about it.
        retryable: Whether the very same call may succeed a little later.
        status: The HTTP status of the answer, or None.
        retry_after: Seconds after which the provider wants a retry, or None.
    """

    hint: str = "see the error's __cause__, if there is one"
    retryable: bool = False
    status: int | None = None
    retry_after: float | None = None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        retryable: bool | None = None,
        status: int | None = None,
    ) -> None:
        """Describe what happened and what to do.

        Args:
            message: What happened. If it is very long, its middle is left out.
            hint: What to do, at the end of the error's text. None for the class's own hint, which
                the text does not repeat.
            retryable: Whether the same call may succeed later. None for the class's default.
            status: The HTTP status of the answer, if any.
        """
        super().__init__(bounded(message))
        self._told = hint
        if hint is not None:
            self.hint = hint
        if retryable is not None:
            self.retryable = retryable
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        """Return the message and the hint."""
        message = str(self.args[0]) if self.args else ""
        return f"{message}; {self._told}" if self._told else message


class TeacherError(GKTError, RuntimeError):
    """The teacher's call failed or gave nothing to guide with.

    The provider's own exception, if there is one, is the ``__cause__``.
    """

    hint = (
        "check that teacher is reachable and its key valid, wrap it with with_retry() or "
        "with_fallbacks(), or set on_teacher_error='student' to go on without guidance"
    )


class GuidanceError(TeacherError):
    """The teacher answered, but its answer contains no guidance."""

    hint = (
        "check the teacher with mode='teacher', or set on_teacher_error='student' to go on "
        "without guidance"
    )


class StudentError(GKTError, RuntimeError):
    """The student could not be loaded or could not continue."""

    hint = (
        "ask the student alone with mode='student'; the __cause__ says what failed in it. "
        "on_student_error='teacher' has the teacher answer in its place"
    )


class BudgetExceeded(GKTError, RuntimeError):
    """The teacher was not asked, because its call could have passed a budget.

    Attributes:
        student_may_answer: Whether the student may answer alone instead.
    """

    hint = "raise the budget, or let the student answer alone with Budget(on_exceeded='student')"

    def __init__(
        self, message: str = "", *, student_may_answer: bool = False, hint: str | None = None
    ) -> None:
        """Describe the exceeded limit.

        Args:
            message: The limit, by how much, and what to do.
            student_may_answer: Whether the student may answer alone instead.
            hint: What to do, if the message does not say it.
        """
        super().__init__(message, hint=hint)
        self.student_may_answer = student_may_answer


class ConfigurationError(GKTError, ValueError):
    """An argument or a prompt makes no sense. Nothing was paid for it."""

    hint = "change the argument or the prompt that the message names"


class ArgumentTypeError(ConfigurationError, TypeError):
    """An argument has an unusable type, or there is no such argument."""


class MissingKeyError(ConfigurationError, KeyError):
    """A prompt, or a function that makes one, lacks a key."""


class NotSupportedError(ConfigurationError, NotImplementedError):
    """A model lacks a requested feature."""


class MissingPackageError(ConfigurationError, ImportError):
    """A package that an argument needs is missing."""


class MissingFileError(ConfigurationError, FileNotFoundError):
    """A file or a folder that an argument names is missing."""


# Errors that callers caught before there was a family of errors are still caught.
_LIKE = {
    FileNotFoundError: MissingFileError,
    ImportError: MissingPackageError,
    NotImplementedError: NotSupportedError,
    KeyError: MissingKeyError,
    TypeError: ArgumentTypeError,
    ValueError: ConfigurationError,
}


def configuration_error(error: Exception) -> ConfigurationError | None:
    """Make a package error from one that reports a wrong argument or prompt.

    Returns:
        An error of the same built-in kind, without its ``__cause__``. None for another kind.
    """
    if isinstance(error, ValidationError):
        return ConfigurationError(explain(error))
    for builtin, kind in _LIKE.items():
        if isinstance(error, builtin):
            plain = type(error) is not KeyError and type(error).__module__ == "builtins"
            return kind(f"{error}" if plain else f"{type(error).__name__}: {error}")
    return None


@contextmanager
def wrap_errors(otherwise: type[GKTError], what: str) -> Iterator[None]:
    """Let only errors of the package's family through, each with its cause.

    Args:
        otherwise: The class for errors that do not report a wrong argument.
        what: What failed then, for the message.
    """
    try:
        yield
    except GKTError:
        raise
    except Exception as error:
        other = otherwise(f"{what}: {type(error).__name__}: {error}")
        raise configuration_error(error) or other from error


@contextmanager
def field_errors() -> Iterator[None]:
    """Turn errors of a model's fields into the package's errors, of the same built-in kind.

    An error of ours that pydantic has wrapped is raised unchanged.
    """
    try:
        yield
    except GKTError:
        raise
    except Exception as error:
        if isinstance(error, ValidationError):
            findings = error.errors(include_url=False)
            causes = [finding.get("ctx", {}).get("error") for finding in findings]
            if len(causes) == 1 and isinstance(causes[0], GKTError):
                raise causes[0] from (causes[0].__cause__ or error)
        if (gkt_error := configuration_error(error)) is None:
            raise
        raise gkt_error from error


def bounded(text: str, limit: int = _MAX_TEXT) -> str:
    """Leave out the middle of a text of more than ``limit`` characters, with a note of how much."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]} [... {len(text) - head - tail} characters left out ...] {text[-tail:]}"


def refuse_empty(messages: Sequence[BaseMessage]) -> None:
    """Refuse a prompt without text before a teacher is paid for it."""
    if not any(
        message.content if isinstance(message.content, list) else message.content.strip()
        for message in messages
    ):
        raise ValueError("messages must hold some text to answer; the prompt is empty")


def refuse_broken_text(messages: Sequence[BaseMessage]) -> None:
    """Refuse halves of characters, which no tokenizer and no provider can encode."""
    for position, message in enumerate(messages):
        calls = getattr(message, "tool_calls", None)
        for text in (str(message.text), json.dumps(calls, ensure_ascii=False, default=str)):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"messages[{position}] ({message.type}) holds half of a character, "
                    f"{text[error.start]!r} at {error.start}; read the text with the right "
                    "encoding, or write it with text.encode('utf-8', 'replace').decode()"
                ) from None


def refuse_unknown(names: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise a TypeError for a name that is not known. It says whose it is, and the nearest one."""
    known = sorted(known)
    for name in names:
        if name not in known:
            raise TypeError(f"{owner} got an unknown argument {name!r}; {nearest(name, known)}")


class CheckedFields(ABCMeta):
    """The metaclass of classes whose objects are made within `field_errors`."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object."""
        with field_errors():
            return super().__call__(*args, **kwargs)


class KnownFields(metaclass=CheckedFields):
    """Refuses unknown arguments of a dataclass with the nearest name. pydantic would drop them."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        fields = values.kwargs if isinstance(values, ArgsKwargs) else values
        known: Any = cls.__dataclass_fields__  # type: ignore[attr-defined]
        refuse_unknown(fields or (), known, cls.__name__)
        return values


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question for the nearest known name, or all names if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(known)}."


def is_number(value: Any) -> bool:
    """Whether a value is a number. True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def share_number(name: str, value: Any) -> float:
    """Return a number from 0 to 1. Refuse another value of the field ``name``."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, such as 0.3 for 30%, not {value!r}")
    return float(value)


def whole_number(name: str, value: Any, *, least: int, meaning: str = "") -> int:
    """Return a whole number of ``least`` or more. Refuse another value of the field ``name``.

    ``meaning`` says what the smallest value means, for the message.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        bound = f"{least} ({meaning}) or more" if meaning else f"a whole number, {least} or more"
        raise ValueError(f"{name} must be {bound}, not {value}")
    return value


def count_field(name: str, least: int, meaning: str = "") -> BeforeValidator:
    """Return the annotation of a field that is checked by `whole_number`."""
    return BeforeValidator(partial(whole_number, name, least=least, meaning=meaning))


def share_field(name: str) -> BeforeValidator:
    """Return the annotation of a field that is checked by `share_number`."""
    return BeforeValidator(partial(share_number, name))


def choice_field(name: str, *choices: str) -> BeforeValidator:
    """Return the annotation of a field that takes one of a few words. The message names them."""

    def check(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"{name} must be {any_of(choices)}, not {value!r}")
        return value

    return BeforeValidator(check)


def any_of(names: Iterable[str]) -> str:
    """Return names as messages list them: ``'a', 'b' or 'c'``."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def explain(error: ValidationError) -> str:
    """Put pydantic's findings into one line, without its links."""
    messages = []
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        place = ".".join(map(str, detail["loc"]))
        messages.append(str(cause) if cause else f"{place}: {detail['msg']}")
    return "; ".join(messages)
