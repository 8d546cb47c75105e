from __future__ import annotations

import pytest
from pytest_socket import disable_socket


@pytest.fixture(autouse=True)
def no_network() -> None:
    """Unit tests reach no network; event loops need their socket pair."""
    disable_socket(allow_unix_socket=True)
