"""One answer: the engine's text as LangChain's message chunks."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from dataclasses import replace

from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from langchain_gkt.errors import StudentError, wrap_errors
from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.tool_parsing import AnswerParser

_FAILED = "the student failed while it wrote"


class Generation:
    """Generates one answer, streamed or at once, on the event loop or off it."""

    def __init__(
        self, engine: Backend, request: Request, parser: AnswerParser | None, *, model_name: str
    ) -> None:
        """Prepare, without sending the request. No parser if the answer is nothing but text."""
        self._engine, self._request, self._parser = engine, request, parser
        self._model_name = model_name
        # Not if a stop string may end the text before the engine does.
        self._is_whole = parser is None or not parser.may_stop

    def stream(self, *, whole: bool = False) -> Iterator[ChatGenerationChunk]:
        """Generate the answer token by token, or as a whole. Closing the iterator stops it."""
        parts = self._engine.generate(self._request, threading.Event(), stream=not whole)
        with wrap_errors(StudentError, _FAILED), closing(parts):
            for part in parts:
                chunk = self._chunk(part)
                yield chunk
                if _is_last(chunk):
                    return

    async def astream(self, *, whole: bool = False) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Do what `stream` does, on the event loop."""
        parts = self._engine.agenerate(self._request, stream=not whole)
        with wrap_errors(StudentError, _FAILED):
            async with aclosing(parts):
                async for part in parts:
                    chunk = self._chunk(part)
                    yield chunk
                    if _is_last(chunk):
                        return

    def result(self) -> ChatResult:
        """Generate the whole answer."""
        with wrap_errors(StudentError, _FAILED):
            return generate_from_stream(self.stream(whole=self._is_whole))

    async def aresult(self) -> ChatResult:
        """Do what `result` does, on the event loop."""
        with wrap_errors(StudentError, _FAILED):
            return await agenerate_from_stream(self.astream(whole=self._is_whole))

    def _chunk(self, part: TokenChunk) -> ChatGenerationChunk:
        calls: list[ToolCallChunk] = []
        if self._parser is not None:
            text, calls, stopped = self._parser.read(part.text, last=bool(part.finish_reason))
            reason = "stop" if stopped else part.finish_reason
            if calls and reason == "stop":
                reason = "tool_calls"
            part = replace(part, text=text, finish_reason=reason)
        if part.finish_reason is None:
            return ChatGenerationChunk(message=AIMessageChunk(content=part.text))
        prompt_tokens = len(self._request.prompt) + len(self._request.answer_prefix)
        usage = UsageMetadata(
            input_tokens=prompt_tokens,
            output_tokens=part.tokens,
            total_tokens=prompt_tokens + part.tokens,
        )
        reasoning = min(self._parser.reasoning_tokens, part.tokens) if self._parser else 0
        if reasoning:
            usage["output_token_details"] = OutputTokenDetails(reasoning=reasoning)
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=part.text,
                tool_call_chunks=calls,
                usage_metadata=usage,
                response_metadata={
                    "finish_reason": part.finish_reason,
                    "model_name": self._model_name,
                    "model_provider": "huggingface-local",
                },
                chunk_position="last",
            )
        )


def _is_last(chunk: ChatGenerationChunk) -> bool:
    return "finish_reason" in chunk.message.response_metadata
