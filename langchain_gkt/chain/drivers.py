"""Carries out a call that is written once, with an event loop or without.

A script is a generator. It yields chunks to show, and requests: `Ask` to run a model, `MORE`
for the next chunk of the one it streams (None when there is none), `Do` for work that would
hold an event loop up. It is sent the reply, or thrown what was raised.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request to run a model.

    Attributes:
        model: The model.
        messages: Its input.
        config: The config of its run.
        arguments: Arguments of its call.
        streams: Whether the reply is wanted chunk by chunk.
        has_async: Whether the model can be awaited.
    """

    model: Runnable[Any, Any]
    messages: list[BaseMessage]
    config: RunnableConfig
    arguments: dict[str, Any]
    streams: bool = False
    has_async: bool = True


@dataclass(frozen=True)
class Do:
    """A request to do some work.

    Attributes:
        work: The work.
        awork: The same for an event loop; None to do the work in a thread.
        undo: Frees what the work has made, where nobody waits for it any more.
    """

    work: Callable[[], Any]
    awork: Callable[[], Awaitable[Any]] | None = None
    undo: Callable[[Any], None] | None = None


MORE = object()
"""Asks for the next chunk of the model that streams."""

Script = Generator[Any, Any, None]


def carry_out(script: Script) -> Iterator[ChatGenerationChunk]:
    """Run a script.

    Args:
        script: The script.

    Yields:
        The chunks it yields. Closing the iterator closes the model that streams.
    """
    stream: Any = None
    try:
        step = next(script)
        while True:
            if isinstance(step, ChatGenerationChunk):
                yield step
                step = script.send(None)
                continue
            try:
                if isinstance(step, Do):
                    got = step.work()
                elif isinstance(step, Ask) and not step.streams:
                    got = step.model.invoke(step.messages, step.config, **step.arguments)
                else:
                    if isinstance(step, Ask):
                        stream = step.model.stream(step.messages, step.config, **step.arguments)
                    got = next(stream, None)
            except Exception as error:  # noqa: BLE001  the script decides what it means
                step = script.throw(error)
            else:
                step = script.send(got)
    except StopIteration:
        return
    finally:
        if stream is not None:
            stream.close()
        script.close()


async def acarry_out(script: Script) -> AsyncIterator[ChatGenerationChunk]:
    """Run a script on the event loop; see `carry_out`.

    Args:
        script: The script.

    Yields:
        The chunks it yields.
    """
    stream: Any = None
    try:
        step = next(script)
        while True:
            if isinstance(step, ChatGenerationChunk):
                yield step
                step = script.send(None)
                continue
            try:
                if isinstance(step, Do) and step.awork is not None:
                    got = await step.awork()
                elif isinstance(step, Do):
                    got = await _in_thread(step)
                elif isinstance(step, Ask) and not step.streams:
                    got = await ask_async(step)
                else:
                    if isinstance(step, Ask):
                        stream = step.model.astream(step.messages, step.config, **step.arguments)
                    got = await anext(stream, None)
            except Exception as error:  # noqa: BLE001  the script decides what it means
                step = script.throw(error)
            else:
                step = script.send(got)
    except StopIteration:
        return
    finally:
        if stream is not None:
            await stream.aclose()
        script.close()


async def _in_thread(step: Do) -> Any:
    """Do work in a thread; what it makes is undone if its task is cancelled meanwhile."""
    made: list[Any] = []
    cancelled, lock = False, threading.Lock()

    def work() -> Any:
        got = step.work()
        with lock:
            if not cancelled:
                made.append(got)
                return got
        if step.undo:
            step.undo(got)
        return got

    try:
        return await run_in_executor(None, work)
    except (asyncio.CancelledError, GeneratorExit):  # the latter where a loop is abandoned
        with lock:
            cancelled = True
        for got in made:  # it came, but not to its task
            if step.undo:
                step.undo(got)
        raise


async def ask_async(ask: Ask) -> Any:
    """Run a model on the event loop, or in a thread where it cannot be awaited.

    Args:
        ask: The request.

    Returns:
        The model's reply.
    """
    if ask.has_async:
        return await ask.model.ainvoke(ask.messages, ask.config, **ask.arguments)
    return await run_in_executor(None, ask.model.invoke, ask.messages, ask.config, **ask.arguments)
