from __future__ import annotations

import pytest

from langchain_gkt.costs.totals import BusyClock


def test_a_machine_is_busy_once_however_many_run() -> None:
    clock = BusyClock()
    a = clock.start(0.0)
    b = clock.start(1.0)
    shares = [clock.end(3.0, a)]
    shares.append(clock.end(4.0, b))
    c = clock.start(10.0)
    shares.append(clock.end(11.0, c))
    assert shares == pytest.approx([2.0, 2.0, 1.0])
