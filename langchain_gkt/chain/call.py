"""One call of the chain: the steps of its strategy, with or without an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from langchain_gkt.chain.drivers import CallSteps, run_async, run_sync
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.errors import GKTError, refuse_broken_text, refuse_empty, wrap_errors


def run_call(
    settings: CallSettings, messages: list[BaseMessage], *, streaming: bool
) -> Iterator[ChatGenerationChunk]:
    """Make a call, and yield the chunks of its answer. The last carries usage and metadata.

    Without ``streaming`` each model gives its text at once.
    """
    with wrap_errors(GKTError, "the call failed"):
        yield from run_sync(_steps(settings, messages, streaming), settings.deadline)


async def arun_call(
    settings: CallSettings, messages: list[BaseMessage], *, streaming: bool
) -> AsyncGenerator[ChatGenerationChunk, None]:
    """Do what `run_call` does, on the event loop."""
    with wrap_errors(GKTError, "the call failed"):
        steps = _steps(settings, messages, streaming)
        async with aclosing(run_async(steps, settings.deadline)) as chunks:
            async for chunk in chunks:
                yield chunk


def _steps(settings: CallSettings, messages: list[BaseMessage], streaming: bool) -> CallSteps:
    refuse_empty(messages)
    refuse_broken_text(messages)
    yield from settings.strategy.steps(settings, messages, streaming=streaming)
