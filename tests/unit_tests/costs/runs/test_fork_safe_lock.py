"""A child that was forked while a tracker's lock was held does not wait for it."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from support.runs import guided_call

from langchain_gkt import CostTracker


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_held_is_free_in_the_child() -> None:
    tracker, held, let_go = CostTracker(), threading.Event(), threading.Event()

    def hold() -> None:
        with tracker._lock:
            held.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends it if it waits
        guided_call(tracker)
        os._exit(tracker.report().to_dict()["teacher"]["calls"])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    let_go.set()
    holder.join(60)
    assert code == 1
    guided_call(tracker)
    assert tracker.report().to_dict()["teacher"]["calls"] == 1
