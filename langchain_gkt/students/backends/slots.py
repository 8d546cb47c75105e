"""The queue in front of an engine that blocks a thread for each request it serves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.failures import as_student_error

_CLOSING_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """Work that takes one slot.

    Attributes:
        run: Does the work, on a thread of its own. Raises nothing, unless it panics.
        fail: Called if the queue is closed before its turn, or if it panics.
    """

    run: Callable[[], None]
    fail: Callable[[Exception], None]


class Slots:
    """Runs jobs in order, a limited number at a time, each on a thread of its own.

    Attributes:
        closed: Whether no more jobs are taken. Running jobs should check it, and end.
    """

    def __init__(self, count: int, max_queue: int) -> None:
        """Prepare, without a thread.

        Args:
            count: Maximum number of jobs that run at the same time.
            max_queue: Maximum number of jobs that wait.
        """
        self._free, self._max_queue = count, max_queue
        self._waiting: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self.closed = False

    def submit(self, job: Job, *, waits: bool = True) -> None:
        """Run a job as soon as a slot is free.

        Args:
            job: The job.
            waits: Whether it may wait for a slot.

        Raises:
            StudentError: If the student is closed, too many wait already, or it may not wait and
                has to.
        """
        with self._lock:
            if self.closed:
                raise StudentError("the student is closed; make a new one")
            if not waits and not self._free:
                raise StudentError("all slots are busy")
            if not self._free and len(self._waiting) >= self._max_queue:
                raise StudentError(
                    f"{len(self._waiting)} requests already wait for the student, and max_queue="
                    f"{self._max_queue}; send fewer at once, or raise max_queue"
                )
            self._waiting.append(job)
            self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            thread = threading.Thread(
                target=self._serve, args=[self._waiting.popleft()], name="gkt-student", daemon=True
            )
            self._threads.add(thread)
            thread.start()

    def _serve(self, job: Job) -> None:
        try:
            while True:
                try:
                    job.run()
                except BaseException as error:  # noqa: BLE001  a panic must leave nobody waiting
                    job.fail(as_student_error(error))
                with self._lock:
                    if not self._waiting:
                        return
                    job = self._waiting.popleft()  # on the same thread, which costs less
        finally:
            with self._lock:
                self._free += 1
                self._threads.discard(threading.current_thread())
                self._start()

    def close(self) -> None:
        """Take no more jobs, fail those that wait, and wait for those that run."""
        with self._lock:
            self.closed = True
            waiting, running = [*self._waiting], [*self._threads]
            self._waiting.clear()
        for job in waiting:
            job.fail(StudentError("the student was closed before the answer was finished"))
        for thread in running:
            if thread is not threading.current_thread():
                thread.join(_CLOSING_SECONDS)
