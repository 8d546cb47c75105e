"""Drives a call, written once as a generator, with or without an event loop.

The generator yields chunks to show, and requests. A `ModelCall` runs a model. `NEXT_CHUNK` asks for
the next chunk of the model that streams (None when there is no more). `BlockingWork` is work that
would block an event loop. The driver sends the result back, or throws the exception into the
generator.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    patch_config,
    run_in_executor,
    var_child_runnable_config,
)

from langchain_gkt.chain.reliability.deadline import Deadline, Stage
from langchain_gkt.chain.reliability.owned_stream import OwnedStream
from langchain_gkt.chain.reliability.run_guard import RunGuard
from langchain_gkt.chain.reliability.timed import call_in_time, stream_in_time
from langchain_gkt.chain.reliability.timed_async import (
    TimedAsyncStream,
    await_in_time,
    await_thread,
    read_on_thread,
)
from langchain_gkt.teachers.attempts import raising_refusals


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
        blocks: Whether it runs in a thread when it is awaited.
    """

    model: Runnable[Any, Any]
    messages: list[BaseMessage]
    config: RunnableConfig
    arguments: dict[str, Any]
    streams: bool = False
    has_async: bool = True
    blocks: bool = False

    @property
    def stage(self) -> Stage:
        """The stage of the call whose time it takes."""
        is_student = self.config.get("metadata", {}).get("gkt_role") == "student"
        return "student" if is_student else "teacher"

    def guarded(self) -> tuple[ModelCall, RunGuard]:
        """Return the same request with a guard of its runs."""
        guard = RunGuard()
        return replace(self, config=guard.added_to(self.config, self.model)), guard

    @contextmanager
    def in_context(self) -> Iterator[None]:
        """Set the config of the model's run as the surrounding one.

        Otherwise a wrapper of the model adds the handlers of the run around the chain's. Their
        tracers differ from those of the chain's run, so they would trace the model twice.
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
            return self.model.invoke(self.messages, self.config, **self.arguments)

    async def arun(self) -> Any:
        """Return the model's whole reply, from a thread if the model cannot be awaited."""
        if not self.has_async:
            return await run_in_executor(None, self.run)
        with self.in_context():
            return await self.model.ainvoke(self.messages, self.config, **self.arguments)

    def stream(self) -> Any:
        """Return an iterator over the chunks of the model's reply."""
        return self.model.stream(self.messages, self.config, **self.arguments)

    def astream(self) -> Any:
        """Return an asynchronous iterator over the chunks of the model's reply."""
        return OwnedStream(self.model.astream(self.messages, self.config, **self.arguments))


@dataclass(frozen=True)
class BlockingWork:
    """A request to do some work.

    Attributes:
        work: The work.
        awork: The same for an event loop. None to do the work in a thread.
        undo: Frees the result of the work if its task was cancelled meanwhile.
        stage: The stage of the call whose time it takes.
    """

    work: Callable[[], Any]
    awork: Callable[[], Awaitable[Any]] | None = None
    undo: Callable[[Any], None] | None = None
    stage: Stage = "student"


NEXT_CHUNK = object()
"""Requests the next chunk of the model that streams."""

CallSteps = Generator[Any, Any, None]
"""The generator of one call."""


def run_sync(steps: CallSteps, deadline: Deadline | None = None) -> Iterator[ChatGenerationChunk]:
    """Run a call without an event loop, and yield the chunks to show.

    Closing the iterator closes the model that streams.
    """
    stream: Any = None
    try:
        step = next(steps)
        while True:
            if isinstance(step, ChatGenerationChunk):
                with _reading(deadline):
                    yield step
                step = steps.send(None)
                continue
            try:
                if isinstance(step, ModelCall) and step.streams:
                    with step.in_context():
                        stream = _stream_of(step, deadline)
                        result = next(stream, None)
                elif isinstance(step, BlockingWork | ModelCall):
                    result = result_of(step, deadline)
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


def _reading(deadline: Deadline | None) -> AbstractContextManager[None]:
    return nullcontext() if deadline is None else deadline.paused()


def result_of(step: BlockingWork | ModelCall, deadline: Deadline | None) -> Any:
    """Carry out one request, and return its result. A model's reply is wanted whole."""
    if isinstance(step, BlockingWork):
        if deadline is None:
            return step.work()
        return call_in_time(deadline, step.stage, step.work, undo=step.undo)
    with raising_refusals():
        if deadline is None:
            return step.run()
        call, guard = step.guarded()
        return call_in_time(deadline, call.stage, call.run, guard=guard)


def _stream_of(step: ModelCall, deadline: Deadline | None) -> Any:
    if deadline is None:
        return step.stream()
    call, guard = step.guarded()
    return stream_in_time(deadline, call.stage, call.stream, guard)


async def run_async(
    steps: CallSteps, deadline: Deadline | None = None
) -> AsyncGenerator[ChatGenerationChunk, None]:
    """Do what `run_sync` does, on the event loop."""
    stream: Any = None
    try:
        step = next(steps)
        while True:
            if isinstance(step, ChatGenerationChunk):
                with _reading(deadline):
                    yield step
                step = steps.send(None)
                continue
            try:
                if isinstance(step, ModelCall) and step.streams:
                    with step.in_context():
                        stream = _astream_of(step, deadline)
                        result = await anext(stream, None)
                elif isinstance(step, BlockingWork | ModelCall):
                    result = await aresult_of(step, deadline)
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


async def aresult_of(step: BlockingWork | ModelCall, deadline: Deadline | None) -> Any:
    """Do what `result_of` does, on the event loop."""
    if isinstance(step, BlockingWork):
        work = step.awork or partial(_in_thread, step)
        if deadline is None:
            return await work()
        return await await_in_time(deadline, step.stage, work)
    with raising_refusals():
        if deadline is None:
            return await step.arun()
        call, guard = step.guarded()
        if call.blocks or not call.has_async:
            return await await_thread(deadline, call.stage, call.run, guard)
        return await await_in_time(deadline, call.stage, call.arun, guard=guard)


def _astream_of(step: ModelCall, deadline: Deadline | None) -> Any:
    if deadline is None:
        return step.astream()
    call, guard = step.guarded()
    if call.blocks:
        stream = read_on_thread(deadline, call.stage, call.stream, guard)
    else:
        stream = call.astream()
    return TimedAsyncStream(deadline, call.stage, stream, guard)


async def _in_thread(request: BlockingWork) -> Any:
    """Do work in a thread. Undo its result if the task is cancelled meanwhile."""
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
