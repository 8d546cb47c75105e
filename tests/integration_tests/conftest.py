from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from support.models.fakes import MODELS

from langchain_gkt.demo import pair
from langchain_gkt.demo.cloud import LocalCloud


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    """The embedded teacher behind a real HTTP server."""
    with LocalCloud(MODELS / "teacher", name="demo-teacher") as running:
        yield running


@pytest.fixture(autouse=True)
def one_teacher(request, monkeypatch) -> None:
    """Start the embedded teacher once for all tests, because a start takes seconds."""
    running = lambda folder: nullcontext(request.getfixturevalue("cloud"))  # noqa: E731
    monkeypatch.setattr(pair, "LocalCloud", running)
