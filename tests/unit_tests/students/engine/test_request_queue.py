"""The queue in front of a scheduler."""

from __future__ import annotations

import time

import pytest
from support.models.tiny import wait_until

from langchain_gkt.students.engine import request_queue
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.request_queue import RequestQueue


class Server:
    def __init__(self) -> None:
        self.queue = RequestQueue(4, self.serve)
        self.begun: list[tuple[PrefillHandle, float]] = []
        self.rounds = 0

    def serve(self) -> None:
        while True:
            with self.queue.lock:
                if not self.queue.wait_for_work(busy=False):
                    return
            self.rounds += 1
            if (ahead := self.queue.pending_ahead()) is not None:
                self.begun.append((ahead, time.monotonic()))
                ahead.finish()


@pytest.mark.parametrize("linger", [0.0, 2.0])
def test_a_prompt_is_begun_when_it_is_due(monkeypatch, linger) -> None:
    monkeypatch.setattr(request_queue, "_LINGER_SECONDS", linger)
    server = Server()
    later = PrefillHandle([1], due=time.monotonic() + 0.3)
    server.queue.submit_ahead(later)
    wait_until(lambda: server.begun)
    server.queue.close()
    ((ahead, at),) = server.begun
    assert ahead is later
    assert at >= later.due
    assert server.rounds == 1, "the thread sleeps until then"


def test_a_prompt_that_is_due_does_not_wait_for_one_that_is_not() -> None:
    server = Server()
    later, now = PrefillHandle([1], due=time.monotonic() + 30.0), PrefillHandle([2])
    server.queue.submit_ahead(later)
    server.queue.submit_ahead(now)
    wait_until(lambda: server.begun)
    server.queue.close()
    assert [ahead for ahead, _ in server.begun] == [now]
