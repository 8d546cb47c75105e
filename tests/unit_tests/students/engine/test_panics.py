"""A panic of a Rust library in the engine's thread leaves nobody waiting."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.models.tiny import ids, run

from langchain_gkt import StudentError
from langchain_gkt.students.backends.slots import Job, Slots
from langchain_gkt.students.engine.engine import Engine, Request


class Panic(BaseException):
    """As pyo3 raises it: no Exception."""


class Panics:
    """A constraint that panics."""

    done = False

    def choose(self, logits, pick) -> int:
        raise Panic("index out of bounds")


def request(seed: int) -> Request:
    return Request(prompt=ids(seed, 9), answer_prefix=[], max_tokens=6)


@pytest.mark.parametrize("place", ["_run_step", "_admit", "_decode", "_remove_cancelled"])
def test_all_callers_get_an_error_and_the_engine_starts_anew(place, engine: Engine) -> None:
    scheduler, expected = engine.scheduler, run(engine, request(1))
    whole, raised = getattr(scheduler, place), threading.Event()

    def panic(*arguments):
        if raised.is_set():
            return whole(*arguments)
        raised.set()
        raise Panic("index out of bounds")

    with ThreadPoolExecutor(3) as pool:
        with scheduler.queue.lock:  # all of them wait when it happens
            setattr(scheduler, place, panic)
            waiting = [pool.submit(run, engine, request(1)) for _ in range(3)]
        failures = [one.exception(20) for one in waiting]
    assert any(failures)
    for failure in filter(None, failures):  # one that came a step later is answered
        assert isinstance(failure, StudentError) and "Panic: index out of bounds" in str(failure)
        assert isinstance(failure.__cause__, Panic)
    assert run(engine, request(1)) == expected


def test_a_panic_of_one_constraint_is_its_requests_own(engine: Engine) -> None:
    expected = run(engine, request(2))
    with ThreadPoolExecutor(2) as pool:
        broken = pool.submit(run, engine, replace(request(1), constraint=Panics()))
        other = pool.submit(run, engine, request(2))
        with pytest.raises(StudentError, match="Panic"):
            broken.result(60)
        assert other.result(60) == expected


def test_a_panic_in_a_slot_fails_its_job_alone() -> None:
    slots, failures, ran = Slots(1, 4), [], threading.Event()

    def panic() -> None:
        raise Panic("index out of bounds")

    slots.submit(Job(panic, failures.append))
    slots.submit(Job(ran.set, failures.append))
    assert ran.wait(60)
    slots.close()
    assert [type(failure) for failure in failures] == [StudentError]


def test_a_machine_out_of_threads_loses_no_slot(monkeypatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    slots, failures, ran = Slots(1, 4), [], threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        slots.submit(Job(ran.set, failures.append))
    assert ["can't start new thread" in str(failure) for failure in failures] == [True]
    slots.submit(Job(ran.set, failures.append))
    assert ran.wait(60)
    slots.close()
    assert len(failures) == 1
