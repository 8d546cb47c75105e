"""Several answers to one question as one HTTP request, as votes need them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from langchain_gkt.students.backends.server.answer import all_replies
from langchain_gkt.students.backends.server.dialects import Ask, Replies, Reply
from langchain_gkt.students.engine.requests.request import Request
from langchain_gkt.students.protocol import SampleGroup

_GATHER_SECONDS = 0.05
"""How long the first of several answers waits for the others, which come from other threads."""


def may_share(request: Request) -> bool:
    """Whether an answer can be written in one request with others to its question.

    Seams and constraints need requests of their own. So do stop strings, which end each answer
    elsewhere.
    """
    is_drawn = request.temperature > 0 and request.seed is None
    return is_drawn and not request.seam and not request.constraint and not request.stop


def shared_replies(group: SampleGroup, replies: Replies) -> Replies:
    """Return a function that gives each answer of a group its part of one request.

    An answer that comes too late, or is requested again, has a request of its own.
    """
    if group.shared is None:
        group.shared = _Shared(group.size, replies)
    shared: _Shared = group.shared
    return shared.next_part()


class _Shared:
    """One request for several answers. All of them are written on one event loop."""

    def __init__(self, size: int, replies: Replies) -> None:
        self._size, self._send = size, replies
        self._joined = self._waiting = 0
        self._full = asyncio.Event()
        self._work: asyncio.Task[dict[int, list[Reply]]] | None = None
        self._is_sent = False

    def next_part(self) -> Replies:
        if self._is_sent:
            return self._send
        index, used = self._joined, False
        self._joined += 1
        if self._joined == self._size:
            self._full.set()

        def replies(ask: Ask) -> AsyncGenerator[Reply, None]:
            nonlocal used
            if used:
                return self._send(ask)
            used = True
            return self._part(index, ask)

        return replies

    async def _part(self, index: int, ask: Ask) -> AsyncGenerator[Reply, None]:
        """Yield the replies of one answer. The request is dropped if nobody waits for it."""
        if self._work is None:
            self._work = asyncio.create_task(self._ask(ask))
        self._waiting += 1
        try:
            replies = (await asyncio.shield(self._work))[index]
        finally:
            self._waiting -= 1
            if not self._waiting and not self._work.done():
                self._work.cancel()
        for reply in replies:
            yield reply

    async def _ask(self, ask: Ask) -> dict[int, list[Reply]]:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._full.wait(), _GATHER_SECONDS)
        self._is_sent = True
        replies: dict[int, list[Reply]] = defaultdict(list)
        whole = replace(ask, samples=self._joined, stream=False)
        for reply in await all_replies(self._send, whole):
            replies[reply.index].append(reply)
        return replies
