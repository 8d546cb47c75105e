"""Coroutines that are run from synchronous code."""

from __future__ import annotations

import asyncio

import pytest
from support.models.exam import Needy, lasting_lines, pair, task

from langchain_gkt import track_costs
from langchain_gkt.evaluation import acompare, compare


async def test_it_runs_inside_an_event_loop_too() -> None:
    inside = compare(pair(), task(3))
    outside = await acompare(pair(), task(3))
    assert lasting_lines(inside) == lasting_lines(outside)


def test_calls_share_one_event_loop_and_the_callers_context() -> None:
    loops = []

    class Noting(Needy):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            loops.append(asyncio.get_running_loop())
            return self._generate(messages)

    chain = pair().model_copy(update={"student": Noting()})
    with track_costs() as costs:
        for _ in range(2):  # an HTTP client's connections would not outlive a loop of its own
            compare(chain, task(2), modes=["student"])
    assert len(set(loops)) == 1
    assert costs.report().student.calls == 4


@pytest.mark.slow
def test_ctrl_c_ends_a_run_at_once(forks) -> None:
    ended = forks.run("""
import asyncio, threading

class Endless(Needy):
    async def _agenerate(self, *args, **kwargs):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.sleep(100)
        finally:
            print("cancelled")

try:
    compare(pair().model_copy(update={"student": Endless()}), task(1), modes=["student"])
except KeyboardInterrupt:
    print("interrupted")
""")
    assert ended[:2] == (0, "cancelled\ninterrupted\n"), ended
