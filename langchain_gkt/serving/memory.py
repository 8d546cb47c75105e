"""Gives memory back that large requests needed for a moment."""

from __future__ import annotations

import ctypes


def release_freed_memory() -> None:
    """Return freed memory to the system; glibc would keep the most that was ever in use."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, which has no such function
        return
    trim(0)
