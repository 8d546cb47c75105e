"""The front of a student's worker: what any thread may ask of it."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.prefill import Ahead
from langchain_gkt.students.engine.request import Limits, Row

_THREAD = "gkt-student"


class Desk(ABC):
    """Takes requests from any thread, and keeps one thread of its own that serves them."""

    def __init__(self, limits: Limits, context: int | None) -> None:
        """Prepare, without starting a thread.

        Args:
            limits: What may be used.
            context: The model's context in tokens, if it has one.
        """
        self.limits, self.context = limits, context
        self.closed = False
        self._reset()
        _desks.add(self)

    def _reset(self) -> None:
        """Begin without requests, without a thread and with a lock of our own."""
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: deque[Row] = deque()
        self._ahead: list[Ahead] = []
        self._unwanted: list[list[int]] = []

    def submit(self, row: Row) -> None:
        """Queue a row.

        Args:
            row: The row.

        Raises:
            StudentError: If the student is closed, or too many requests wait already.
        """
        with self._wake:
            if self.closed:
                raise StudentError("the student is closed; make a new one")
            if len(self._waiting) >= self.limits.max_queue:
                raise StudentError(
                    f"{len(self._waiting)} requests already wait for the student, and max_queue="
                    f"{self.limits.max_queue}; send fewer at once, or raise max_queue"
                )
            self._start()  # first: where no thread can be had, nothing is left behind
            self._waiting.append(row)

    def prefill_ahead(self, ids: list[int]) -> Ahead:
        """Queue a prompt whose request will come later.

        Args:
            ids: The prompt.

        Returns:
            A handle for `forget`.
        """
        # What cannot become a request is left for the request to say.
        bounds = (self.context, self.limits.kv_tokens)
        fits = all(bound is None or len(ids) < bound for bound in bounds)
        fits = fits and self.limits.prefix_cache_bytes > 0
        ahead = Ahead(ids, done=not fits, taken=not fits)
        with self._wake:
            if fits and not self.closed:
                self._start()
                self._ahead.append(ahead)
        return ahead

    def forget(self, ahead: Ahead) -> None:
        """Free a prompt prefilled ahead, unless its request has come.

        Args:
            ahead: What `prefill_ahead` returned.
        """
        with self._wake:
            if ahead.taken or self.closed:
                return
            ahead.taken = True
            if ahead in self._ahead:
                self._ahead.remove(ahead)
            self._unwanted.append(ahead.ids)
            self._start()  # only the worker's thread touches what it holds

    def close(self) -> None:
        """End the thread; whoever still waits gets a StudentError."""
        with self._wake:
            self.closed = True
            thread = self._thread
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._wake:
            self._ahead.clear()
            self._unwanted.clear()

    def _start(self) -> None:
        if self._thread is None:
            # No daemon, whoever asks: a daemon would be torn down in the middle of a step.
            thread = threading.Thread(target=self._run, name=_THREAD, daemon=False)
            thread.start()
            self._thread = thread
        self._wake.notify_all()

    def _wanted(self) -> bool:
        """Whether somebody may still ask: the desk is open and the program goes on."""
        if self.closed or threading.main_thread().is_alive():
            return not self.closed
        # The interpreter waits for every thread that is no daemon, and so for us; those of the
        # user's own may go on asking when the main one has ended.
        return any(
            not thread.daemon and thread.name != _THREAD and thread is not threading.main_thread()
            for thread in threading.enumerate()
        )

    @abstractmethod
    def _run(self) -> None:
        """Serve until there is nothing left to do; runs on the desk's own thread."""


_desks: weakref.WeakSet[Desk] = weakref.WeakSet()


def _forget_threads() -> None:
    """Begin anew in a forked child: the thread and whatever it held stayed with the parent."""
    for desk in list(_desks):
        desk._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
