from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.models.fakes import MODELS

from langchain_gkt.demo.cloud import LocalCloud


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    """The embedded teacher behind a real HTTP server."""
    with LocalCloud(MODELS / "teacher", name="demo-teacher") as running:
        yield running
