"""The errors of engines: the package's own, made of those of the libraries behind them."""

from __future__ import annotations

from langchain_gkt.errors import StudentError

CLOSED = "the student was closed before the answer was finished"
FORBIDDEN = (
    "the constraint on the answer forbids every token the student has; the student's "
    "vocabulary cannot write what is asked for"
)


def as_student_error(error: BaseException) -> StudentError:
    """Return an error, a panic included, or a StudentError whose cause it is."""
    if isinstance(error, StudentError):
        return error
    wrapped = StudentError(f"the student failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def refuse_more(*, closed: bool, waiting: int, max_queue: int) -> None:
    """Refuse a request if the student is closed, or too many wait already, with a StudentError."""
    if closed:
        raise StudentError("the student is closed; make a new one")
    if waiting >= max_queue:
        raise StudentError(
            f"{waiting} requests already wait for the student, and max_queue={max_queue}; send "
            "fewer at once, or raise max_queue"
        )
