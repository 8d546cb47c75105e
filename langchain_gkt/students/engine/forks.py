"""Work to do in forked children, whose parent's threads did not come along."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

Work = TypeVar("Work", bound=Callable[[], None])


def in_forked_child(work: Work) -> Work:
    """Run a function in every forked child. A decorator.

    Args:
        work: The function.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=work)
    return work
