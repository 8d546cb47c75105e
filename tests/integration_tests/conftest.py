from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from langchain_gkt.demo import cloud as clouds
from langchain_gkt.demo import pair

if TYPE_CHECKING:
    from support.servers.local_cloud import ThreadCloud


@pytest.fixture(scope="session")
def cloud() -> Iterator[ThreadCloud]:
    """The embedded teacher behind a real HTTP server."""
    from support.servers.local_cloud import ThreadCloud

    with ThreadCloud(pair.TEACHER, name="demo-teacher") as running:
        yield running


@pytest.fixture(autouse=True)
def clouds_in_threads(monkeypatch) -> None:
    """Load torch once; `test_server.py` starts real ones, and so does the example `serve.py`."""
    from support.servers.local_cloud import ThreadCloud

    for module in (pair, clouds):
        monkeypatch.setattr(module, "LocalCloud", ThreadCloud)
