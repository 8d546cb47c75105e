"""The two embedded models: where they lie, and the teacher behind a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_gkt.demo.cloud import LocalCloud

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

TEACHER = Path(__file__).parent / "models" / "teacher"
STUDENT = Path(__file__).parent / "models" / "student"
PRICE = "openai:gpt-4o-mini"
"""Price list entry the toy teacher is billed at, as if it were that model."""


@contextmanager
def demo_teacher() -> Iterator[ChatOpenAI]:
    """Serve the embedded teacher over HTTP, as long as it is needed.

    Yields:
        A client of it.

    Raises:
        ImportError: If langchain-openai or the server's packages are not installed.
    """
    import httpx
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    # No connection is kept: the server goes away before the client does.
    once = httpx.Limits(max_keepalive_connections=0)
    with LocalCloud(TEACHER) as cloud:
        yield ChatOpenAI(
            base_url=cloud.base_url,
            api_key=SecretStr("local"),
            model=cloud.name,
            temperature=0,
            stream_usage=True,
            http_async_client=httpx.AsyncClient(limits=once),
        )
