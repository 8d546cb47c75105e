"""Gives memory back that large requests needed for a moment."""

from __future__ import annotations

import ctypes


def release_freed_memory() -> None:
    """Return freed memory to the system. By default glibc keeps the most that was ever in use."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library without this function
        return
    trim(0)
