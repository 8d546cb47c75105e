"""A chat model that streams slowly, and a program that serves it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

_USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


class Dripping(BaseChatModel):
    """Streams numbered words, and writes down how many it has made."""

    words: int = 10
    seconds: float = 0.0
    padding: int = 0
    made: list[int] = []

    @property
    def _llm_type(self) -> str:
        return "dripping"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        text = " ".join(f"word{i}" for i in range(self.words))
        message = AIMessage(text, usage_metadata=_USAGE)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.sleep(self.words * self.seconds)
        return self._generate()

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        for i in range(self.words):
            await asyncio.sleep(self.seconds)
            self.made.append(i)
            text = f"word{i} " + "x" * self.padding
            yield ChatGenerationChunk(message=AIMessageChunk(text))
        last = AIMessageChunk("", usage_metadata=_USAGE, chunk_position="last")
        yield ChatGenerationChunk(message=last)


def main() -> None:
    """Serve ones that take about two seconds, each in a process that a signal ends.

    The arguments are how long each may take to end. Its line names that, the process and the port.
    """
    from langchain_gkt import GuidedKnowledgeTransferChain
    from langchain_gkt.serving.app import build_app
    from langchain_gkt.serving.run import bind, run

    waiting = sys.argv[1:]
    while waiting and os.fork():  # imports are slow, so they are shared
        waiting.pop()
    if not waiting:
        sys.exit(any([os.wait()[1] for _ in sys.argv[1:]]))
    seconds = waiting[-1]
    model = Dripping(words=20, seconds=0.1)
    chain = GuidedKnowledgeTransferChain(teacher=model, student=model, mode="student")
    with bind("127.0.0.1", 0) as listener:
        sys.stdout.write(f"{seconds} {os.getpid()} {listener.getsockname()[1]}\n")
        sys.stdout.flush()
        run(build_app(chain), listener, shutdown_seconds=float(seconds))


if __name__ == "__main__":
    main()
