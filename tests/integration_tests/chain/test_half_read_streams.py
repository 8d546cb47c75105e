"""A stream that is half read when its event loop ends is closed in order, and logs nothing.

langchain-openai reads its streams in tasks of their own: what httpx logs of these, it logs for
ChatOpenAI alone, too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from typing import Any

import pytest
from support.models.fakes import WordTeacher, make
from support.runs import left_open
from support.servers.billing_server import BillingServer

from langchain_gkt import CostTracker

CLIENT = re.compile(r"object (\w*Stream\.__|Response\.|AsyncStream|SSEDecoder|AsyncHTTP)")


@pytest.fixture(scope="module")
def server():
    with BillingServer() as running:
        yield running


def teacher_of(kind: str, server: BillingServer) -> Any:
    if kind == "words":
        return WordTeacher(answer="First we add 3 and 4. Then we", asked=[])
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="b", base_url=server.base_url, api_key="k", stream_usage=True)


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize(
    ("kind", "ends"), [("words", "in order"), ("words", "at once"), ("openai", "in order")]
)
def test_nothing_is_logged(kind, timeout, ends, server, student, caplog) -> None:
    chain = make(teacher_of(kind, server), student, guidance_tokens=6, timeout=timeout)
    tracker, kept = CostTracker(), []

    async def read(chunks: int) -> None:
        stream = chain.astream("What is 3 plus 4?", {"callbacks": [tracker]})
        for _ in range(chunks):
            await anext(stream)
        kept.append(stream)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        for chunks in (1, 4):
            if ends == "in order":
                asyncio.run(read(chunks))
                assert not left_open(tracker)
            else:
                loop = asyncio.new_event_loop()
                loop.run_until_complete(read(chunks))
                loop.close()
            kept.clear()
            gc.collect()
    said = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert [one for one in said if kind == "words" or not CLIENT.search(one)] == []
