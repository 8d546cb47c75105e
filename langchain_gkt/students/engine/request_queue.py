"""The queue in front of a scheduler, and the thread that serves it."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from langchain_gkt.students.engine.failures import refuse_more
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.request_state import RequestState

_THREAD = "gkt-student"
# How long the thread waits for more work, and how often it checks whether the program ends.
_LINGER_SECONDS, _POLL_SECONDS = 2.0, 0.05


class RequestQueue:
    """Takes requests from any thread, and keeps one thread of its own that serves them.

    The thread starts with the first request. It ends some time after the last one, when the queue
    is closed, or with the program.
    """

    def __init__(self, max_queue: int, serve: Callable[[], None]) -> None:
        """Prepare, without a thread, which runs ``serve`` until `wait_for_work` returns False."""
        self._max_queue = max_queue
        # Weak, because a cycle would keep the weights until the garbage collector runs.
        self._serve = weakref.WeakMethod(serve)
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """Start over without requests and without a thread, with a lock of its own."""
        self.lock = threading.Condition()  # callers may hold it over several calls
        self.waiting: deque[RequestState] = deque()  # nobody has begun them. The oldest is first
        self.ahead: list[PrefillHandle] = []  # to prefill before their requests come
        self.discarded: list[list[int]] = []  # prefilled, and no request will come
        self.thread: threading.Thread | None = None

    def submit(self, state: RequestState) -> None:
        """Queue a request.

        Raises:
            StudentError: If the student is closed, or too many requests wait already.
        """
        with self.lock:
            waiting = len(self.waiting)
            refuse_more(closed=self.closed, waiting=waiting, max_queue=self._max_queue)
            self._wake()  # first, so that no request is left behind if no thread can be started
            self.waiting.append(state)

    def submit_ahead(self, ahead: PrefillHandle) -> None:
        """Queue a prompt whose request will come later. A closed queue ignores it."""
        with self.lock:
            if not self.closed:
                self._wake()
                self.ahead.append(ahead)

    def claim_ahead(self, prompt: list[int]) -> None:
        """Remove a prompt from those to prefill ahead, because its request has come."""
        with self.lock:
            for ahead in [handle for handle in self.ahead if handle.ids == prompt]:
                ahead.claimed.set()
                self.ahead.remove(ahead)

    def discard_ahead(self, ahead: PrefillHandle) -> None:
        """Have a prompt's KV cache freed, unless its request has come."""
        with self.lock:
            if ahead.claimed.is_set() or self.closed:
                return
            ahead.claimed.set()
            if ahead in self.ahead:
                self.ahead.remove(ahead)
            self.discarded.append(ahead.ids)
            self._wake()  # only the scheduler's thread may touch its caches

    def pending_ahead(self) -> PrefillHandle | None:
        """Return the first prompt that is due and not wholly prefilled."""
        with self.lock:
            now = time.monotonic()
            pending = (handle for handle in self.ahead if not handle.done and handle.due <= now)
            return next(pending, None)

    def pop_discarded(self) -> list[list[int]]:
        """Return the prompts to free, and forget them."""
        with self.lock:
            discarded, self.discarded = self.discarded, []
        return discarded

    def pop_cancelled(self) -> list[RequestState]:
        """Remove waiting requests that were cancelled, and return them."""
        with self.lock:
            cancelled = [state for state in self.waiting if state.is_cancelled]
            for state in cancelled:
                self.waiting.remove(state)
        return cancelled

    @property
    def has_work(self) -> bool:
        """Whether anything waits in the queue."""
        return self._seconds_to_work < math.inf

    @property
    def _seconds_to_work(self) -> float:
        if self.waiting or self.discarded:
            return 0.0
        due = min((handle.due for handle in self.ahead if not handle.done), default=math.inf)
        return due - time.monotonic()

    def wait_for_work(self, *, busy: bool) -> bool:
        """Wait until there is something to do. The queue's thread calls this, holding the lock.

        It does not wait if it is ``busy`` with work of its own. False if the thread has to end.
        Another may then be started.
        """
        deadline = time.monotonic() + _LINGER_SECONDS
        while not busy and (left := self._seconds_to_work) > 0 and self.is_serving:
            if not self.has_work and time.monotonic() >= deadline:
                break
            self.lock.wait(min(left, _POLL_SECONDS))
        if (busy or self.has_work) and self.is_serving:
            return True
        self.thread = None
        return False

    @property
    def is_serving(self) -> bool:
        """Whether requests may still come, because the queue is open and the program runs."""
        if self.closed or threading.main_thread().is_alive():
            return not self.closed
        # The interpreter waits for every non-daemon thread, and so for this one. The user's own
        # threads may send requests after the main one has ended.
        return any(
            not thread.daemon and thread.name != _THREAD and thread is not threading.main_thread()
            for thread in threading.enumerate()
        )

    def close(self) -> None:
        """Refuse further requests, and wait for the thread to end."""
        with self.lock:
            self.closed = True
            thread = self.thread
            self.lock.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self.lock:
            self.ahead.clear()
            self.discarded.clear()

    def _wake(self) -> None:
        if self.thread is None:
            # Not a daemon, even if a daemon asks. Exit would tear it down in the middle of a step.
            thread = threading.Thread(target=self._serve(), name=_THREAD, daemon=False)
            thread.start()
            self.thread = thread
        self.lock.notify_all()
