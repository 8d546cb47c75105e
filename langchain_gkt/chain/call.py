"""One call of the chain: the steps of its strategy, with or without an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from langchain_gkt.chain.drivers import CallSteps, run_async, run_sync
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.errors import GKTError, refuse_broken_text, refuse_empty, wrap_errors


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        settings: The settings of the call.
    """

    settings: CallSettings

    def run(self, messages: list[BaseMessage], *, streaming: bool) -> Iterator[ChatGenerationChunk]:
        """Make the call.

        Args:
            messages: The conversation.
            streaming: Whether the models are streamed. If not, each gives its text at once.

        Yields:
            The chunks of the answer. The last one carries usage and metadata.
        """
        with wrap_errors(GKTError, "the call failed"):
            yield from run_sync(self._steps(messages, streaming=streaming), self.settings.deadline)

    async def arun(
        self, messages: list[BaseMessage], *, streaming: bool
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Do what `run` does, on the event loop."""
        with wrap_errors(GKTError, "the call failed"):
            steps = self._steps(messages, streaming=streaming)
            async with aclosing(run_async(steps, self.settings.deadline)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _steps(self, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
        refuse_empty(messages)
        refuse_broken_text(messages)
        yield from self.settings.strategy.steps(self.settings, messages, streaming=streaming)
