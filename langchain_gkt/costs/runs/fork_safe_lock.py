"""A lock that a forked child finds free, whoever held it in the parent."""

from __future__ import annotations

import os
import threading
import weakref


class ForkSafeLock:
    """A lock that its holder can take again. A context manager."""

    def __init__(self) -> None:
        """Start free."""
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        """Take it."""
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        """Give it back."""
        self._lock.release()

    def __reduce__(self) -> tuple[type[ForkSafeLock], tuple[()]]:
        """Pickle a free lock for the other process."""
        return ForkSafeLock, ()

    def renew(self) -> None:
        """Free it in a child. The threads that could release it stayed with the parent."""
        self._lock = threading.RLock()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
