"""A short soak: every call ends, and every billed token is counted or said to be unknown."""

from __future__ import annotations

import gc

import pytest

from benchmarks.soak import soak


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # each fault is said
async def test_every_call_is_accounted_for() -> None:
    seen = await soak(100, concurrency=64, faults=0.1)
    gc.freeze()  # it has thawed what `one_torch_thread` had frozen
    assert seen.problems() == []
    assert seen.requests == 100
    assert 75 < seen.outcomes["answer"] < 100
    assert seen.untold
