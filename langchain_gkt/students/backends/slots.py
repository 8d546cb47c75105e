"""The queue in front of an engine that blocks a thread for each request it serves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.failures import CLOSED, as_student_error, refuse_more

_CLOSING_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """Work that takes one slot."""

    run: Callable[[], None]  # on a thread of its own. It raises nothing, unless it panics
    fail: Callable[[Exception], None]  # called if it panics, or never gets a slot


class Slots:
    """Runs jobs in order, a limited number at a time, each on a thread of its own.

    Attributes:
        closed: Whether no more jobs are taken. Running jobs should check it, and end.
    """

    def __init__(self, count: int, max_queue: int) -> None:
        """Prepare for ``count`` jobs that run and ``max_queue`` that wait, without a thread."""
        self._free, self._max_queue = count, max_queue
        self._waiting: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self.closed = False

    def submit(self, job: Job, *, waits: bool = True) -> None:
        """Run a job as soon as a slot is free.

        Raises:
            StudentError: If the student is closed, too many wait already, or the job has to wait
                and may not.
        """
        with self._lock:
            waiting = len(self._waiting)  # none, as long as a slot is free
            refuse_more(closed=self.closed, waiting=waiting, max_queue=self._max_queue)
            if not waits and not self._free:
                raise StudentError("all slots are busy")
            self._waiting.append(job)
            self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            job = self._waiting.popleft()
            thread = threading.Thread(
                target=self._serve, args=[job], name="gkt-student", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the machine has no thread to spare
                job.fail(as_student_error(error))
                continue
            self._free -= 1
            self._threads.add(thread)

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
            job.fail(StudentError(CLOSED))
        for thread in running:
            if thread is not threading.current_thread():
                thread.join(_CLOSING_SECONDS)
