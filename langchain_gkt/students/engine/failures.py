"""Turns the errors of the libraries behind an engine into the package's own."""

from __future__ import annotations

from langchain_gkt.errors import StudentError


def as_student_error(error: BaseException) -> StudentError:
    """Return an error, or a StudentError whose cause it is.

    Args:
        error: Whatever was raised, a panic included.
    """
    if isinstance(error, StudentError):
        return error
    wrapped = StudentError(f"the student failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
