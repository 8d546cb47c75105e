from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.programs.forks import Forks
from support.programs.interruptions import EVALUATION


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes of their own that have imported the exam's pair and evaluation."""
    with Forks(EVALUATION) as running:
        yield running
