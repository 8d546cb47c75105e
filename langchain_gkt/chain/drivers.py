"""Drives a call that is written once, as a generator, with an event loop or without.

The generator yields chunks to show, and requests: a `ModelCall` to run a model, `NEXT_CHUNK`
for the next chunk of the model that streams (None when there is no more), `BlockingWork` for
work that would block an event loop. It is sent the result, or the exception is thrown into it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    patch_config,
    run_in_executor,
    var_child_runnable_config,
)


@dataclass(frozen=True, kw_only=True)
class ModelCall:
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

    @contextmanager
    def in_context(self) -> Iterator[None]:
        """Give what runs inside the config of the model's run as its surrounding one.

        A wrapper of the model otherwise adds the handlers of the run around the chain's, whose
        tracers are others than those of the chain's run: they would trace the model twice.
        """
        handlers: Any = self.config.get("callbacks")
        inner = patch_config(self.config, callbacks=handlers)
        token = var_child_runnable_config.set(inner)
        try:
            yield
        finally:
            var_child_runnable_config.reset(token)

    def run(self) -> Any:
        """Return the model's whole reply."""
        with self.in_context():
            return self._run()

    def _run(self) -> Any:
        return self.model.invoke(self.messages, self.config, **self.arguments)

    async def arun(self) -> Any:
        """Return the model's whole reply; from a thread if the model cannot be awaited."""
        with self.in_context():
            if self.has_async:
                return await self.model.ainvoke(self.messages, self.config, **self.arguments)
            return await run_in_executor(None, self._run)

    def stream(self) -> Any:
        """Return an iterator over the chunks of the model's reply."""
        return self.model.stream(self.messages, self.config, **self.arguments)

    def astream(self) -> Any:
        """Return an asynchronous iterator over the chunks of the model's reply."""
        return self.model.astream(self.messages, self.config, **self.arguments)


@dataclass(frozen=True)
class BlockingWork:
    """A request to do some work.

    Attributes:
        work: The work.
        awork: The same for an event loop; None to do the work in a thread.
        undo: Frees the result of the work if its task was cancelled meanwhile.
    """

    work: Callable[[], Any]
    awork: Callable[[], Awaitable[Any]] | None = None
    undo: Callable[[Any], None] | None = None


NEXT_CHUNK = object()
"""Asks for the next chunk of the model that streams."""

CallSteps = Generator[Any, Any, None]
"""The generator of one call."""


def run_sync(steps: CallSteps) -> Iterator[ChatGenerationChunk]:
    """Run a call without an event loop.

    Args:
        steps: The call.

    Yields:
        The chunks to show. Closing the iterator closes the model that streams.
    """
    stream: Any = None
    try:
        step = next(steps)
        while True:
            if isinstance(step, ChatGenerationChunk):
                yield step
                step = steps.send(None)
                continue
            try:
                if isinstance(step, BlockingWork):
                    result = step.work()
                elif isinstance(step, ModelCall) and not step.streams:
                    result = step.run()
                elif isinstance(step, ModelCall):
                    with step.in_context():
                        stream = step.stream()
                        result = next(stream, None)
                else:
                    result = next(stream, None)
            except Exception as error:  # noqa: BLE001  the call decides what it means
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration:
        return
    finally:
        if stream is not None:
            stream.close()
        steps.close()


async def run_async(steps: CallSteps) -> AsyncGenerator[ChatGenerationChunk, None]:
    """Run a call on the event loop; see `run_sync`.

    Args:
        steps: The call.

    Yields:
        The chunks to show.
    """
    stream: Any = None
    try:
        step = next(steps)
        while True:
            if isinstance(step, ChatGenerationChunk):
                yield step
                step = steps.send(None)
                continue
            try:
                if isinstance(step, BlockingWork):
                    result = await (step.awork() if step.awork else _in_thread(step))
                elif isinstance(step, ModelCall) and not step.streams:
                    result = await step.arun()
                elif isinstance(step, ModelCall):
                    with step.in_context():
                        stream = step.astream()
                        result = await anext(stream, None)
                else:
                    result = await anext(stream, None)
            except Exception as error:  # noqa: BLE001  the call decides what it means
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration:
        return
    finally:
        if stream is not None:
            await stream.aclose()
        steps.close()


async def _in_thread(request: BlockingWork) -> Any:
    """Do work in a thread; its result is undone if the task is cancelled meanwhile."""
    results: list[Any] = []
    cancelled, lock = False, threading.Lock()

    def work() -> Any:
        result = request.work()
        with lock:
            if not cancelled:
                results.append(result)
                return result
        if request.undo:
            request.undo(result)
        return result

    try:
        return await run_in_executor(None, work)
    except (asyncio.CancelledError, GeneratorExit):  # the latter if the loop was abandoned
        with lock:
            cancelled = True
        for result in results:  # it was ready, but its task was gone
            if request.undo:
                request.undo(result)
        raise
