"""The two embedded models: their folders, and the teacher behind an HTTP server."""

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
QUESTION = (
    "Ben has 29 shells. A parcel brings 15. He doubles them. How many shells does Ben have now?"
)
"""The student alone gets it wrong ("A parcel brings" is new to it), and with guidance right."""
TOYS = "The embedded models are toy models, word problems only."
PRICE = "openai:gpt-4o-mini"
"""The price list's entry for the toy teacher, which is billed as if it were that model."""


@contextmanager
def demo_teacher() -> Iterator[ChatOpenAI]:
    """Serve the embedded teacher over HTTP during the ``with`` block.

    Yields:
        A client of that server.

    Raises:
        ImportError: If langchain-openai or the server's packages are not installed.
    """
    import httpx
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    # Keep no connection open, because the server ends before the client does.
    no_keepalive = httpx.Limits(max_keepalive_connections=0)
    with LocalCloud(TEACHER) as cloud:
        yield ChatOpenAI(
            base_url=cloud.base_url,
            api_key=SecretStr("local"),
            model=cloud.name,
            temperature=0,
            stream_usage=True,
            http_async_client=httpx.AsyncClient(limits=no_keepalive),
        )
