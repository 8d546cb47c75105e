"""Chunks that an engine's thread delivers, as a generator of the caller's thread or event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator

from langchain_gkt.students.engine.requests.request import TokenChunk
from langchain_gkt.time_limit import OutOfTime, seconds_left

Deliver = Callable[[TokenChunk | Exception | None], None]
"""Takes the chunks of an answer, an exception if it failed, or None if it was cancelled."""
Submit = Callable[[Deliver], Callable[[], None]]
"""Sends a request and returns what cancels it. Its chunks are delivered from any thread."""


def receive(
    submit: Submit, started: threading.Event | None = None
) -> Generator[TokenChunk, None, None]:
    """Send a request and yield its chunks. Closing the generator cancels the request.

    The engine sets ``started`` when the request leaves the queue. None if it does not say.

    Raises:
        Exception: The one that was delivered.
        OutOfTime: If the time of the enclosing call is over.
    """
    chunks: queue.SimpleQueue[TokenChunk | Exception | None] = queue.SimpleQueue()
    left = seconds_left()
    cancel = submit(chunks.put)
    try:
        while True:
            try:
                chunk = chunks.get(timeout=left() if left else None)
            except queue.Empty:
                raise _out_of_time(started) from None
            if chunk is None:
                return
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
            if chunk.finish_reason is not None:
                return
    finally:
        cancel()


async def areceive(
    submit: Submit, started: threading.Event | None = None
) -> AsyncGenerator[TokenChunk, None]:
    """Do what `receive` does, on the event loop and without a thread per request."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[TokenChunk | Exception | None] = asyncio.Queue()
    left = seconds_left()
    alarm: asyncio.TimerHandle | None = None

    def deliver(chunk: TokenChunk | Exception | None) -> None:
        try:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
        except RuntimeError:  # the event loop is closed, after `submit`: nobody waits
            cancel()

    def ring() -> None:
        nonlocal alarm
        if left is not None and (seconds := left()) > 0:  # time may stand still for a reader
            alarm = loop.call_later(seconds, ring)
        elif left is not None:
            chunks.put_nowait(_out_of_time(started))

    cancel = submit(deliver)
    if left is not None:
        ring()
    try:
        while (chunk := await chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
            if chunk.finish_reason is not None:
                return
    finally:
        cancel()
        if alarm is not None:
            alarm.cancel()


def _out_of_time(started: threading.Event | None) -> OutOfTime:
    queued = started is not None and not started.is_set()
    what = "its turn in the student's queue" if queued else "the student"
    return OutOfTime(f"the call's time was over while waiting for {what}", queued=queued)
