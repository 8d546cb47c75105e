"""Chunks that an engine's thread delivers, as a generator of the caller's thread or event loop."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Callable, Generator

from langchain_gkt.students.engine.request import TokenChunk

Deliver = Callable[[TokenChunk | Exception | None], None]
"""Takes the chunks of an answer; an exception if it failed, None if it was cancelled."""
Submit = Callable[[Deliver], Callable[[], None]]
"""Sends a request and returns what cancels it; its chunks are delivered from any thread."""


def receive(submit: Submit) -> Generator[TokenChunk, None, None]:
    """Send a request and give its chunks; closing the generator cancels the request.

    Args:
        submit: Sends it.

    Yields:
        The chunks, the last one with a finish reason unless the request was cancelled.

    Raises:
        Exception: What was delivered as one.
    """
    chunks: queue.SimpleQueue[TokenChunk | Exception | None] = queue.SimpleQueue()
    cancel = submit(chunks.put)
    try:
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
            if chunk.finish_reason is not None:
                return
    finally:
        cancel()


async def areceive(submit: Submit) -> AsyncGenerator[TokenChunk, None]:
    """Do what `receive` does, on the event loop and without a thread per request."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[TokenChunk | Exception | None] = asyncio.Queue()
    is_over = False

    def deliver(chunk: TokenChunk | Exception | None) -> None:
        nonlocal is_over
        try:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
        except RuntimeError:  # the event loop is closed: nobody waits
            is_over = True
            if cancel is not None:
                cancel()

    cancel: Callable[[], None] | None = None
    cancel = submit(deliver)
    if is_over:
        cancel()
    try:
        while (chunk := await chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
            if chunk.finish_reason is not None:
                return
    finally:
        cancel()
