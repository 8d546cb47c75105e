"""What becomes of engines in forked children, whose parent's threads did not come along."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from langchain_gkt.errors import StudentError

Work = TypeVar("Work", bound=Callable[[], None])


def in_forked_child(work: Work) -> Work:
    """Run a function in every forked child. A decorator."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=work)
    return work


def refuse_forked(pid: int, library: str) -> None:
    """Refuse a process other than the one that loaded the model, where a library cannot work.

    Raises:
        StudentError: If this is a forked child.
    """
    if os.getpid() != pid:
        raise StudentError(
            f"a student run by {library} cannot work in a forked process; make children with the "
            "start method 'spawn', or use backend='torch'"
        )
