"""A teacher that says what it is told, and a student that adds a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from langchain_gkt.students.protocol import Student


def reply(content: Any = "", *, tokens: int = 8, reason: str = "tool_calls", **more: Any) -> Any:
    """A teacher's reply of so many tokens."""
    return AIMessage(
        content,
        usage_metadata={"input_tokens": 5, "output_tokens": tokens, "total_tokens": 5 + tokens},
        response_metadata={"finish_reason": reason} if reason else {},
        **more,
    )


def _parsed(chunks: list[Any]) -> dict[str, list[Any]]:
    """Read arguments as a provider's client does, which completes nothing."""
    calls: dict[str, list[Any]] = {"tool_calls": [], "invalid_tool_calls": []}
    for chunk in chunks:
        call = {"name": chunk["name"], "id": chunk["id"]}
        try:
            calls["tool_calls"].append({**call, "args": json.loads(chunk["args"] or "{}")})
        except ValueError:
            calls["invalid_tool_calls"].append({**call, "args": chunk["args"], "error": None})
    return calls


class Saying(BaseChatModel):
    """Says what ``says`` returns: called with the limit, it gives a message or several chunks."""

    says: Callable[[int | None], Any]
    asked: list[dict[str, Any]] = Field(default=[], repr=False)
    max_tokens: int | None = None
    stream_usage: bool = True

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append({"messages": messages, "limit": self.max_tokens, **kwargs})
        said = self.says(self.max_tokens)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, list):
            whole = said[0]
            for chunk in said[1:]:
                whole += chunk
            said = AIMessage(
                whole.content,
                **_parsed(whole.tool_call_chunks),
                usage_metadata=whole.usage_metadata,
                response_metadata=whole.response_metadata,
            )
        return ChatResult(generations=[ChatGeneration(message=said)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append({"messages": messages, "limit": self.max_tokens, **kwargs})
        said = self.says(self.max_tokens)
        if isinstance(said, Exception):
            raise said
        if not isinstance(said, list):
            said = [AIMessageChunk(**said.model_dump(exclude={"type"}))]
        for chunk in said:
            done = ChatGenerationChunk(message=chunk)
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(str(chunk.text), chunk=done)
            yield done

    @property
    def _llm_type(self) -> str:
        return "saying"


class Adding(Student, BaseChatModel):
    """A student that adds words, or fails."""

    words: tuple[str, ...] = (" and", " more.")
    fails_after: int | None = None
    refuses: Exception | None = None

    def check(self, messages, **kwargs):
        if self.refuses is not None:
            raise self.refuses
        return 0

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for place, word in enumerate(self.words):
            if place == self.fails_after:
                raise RuntimeError("out of memory")
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        usage: Any = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
        yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=usage))

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        chunks = list(self._stream(messages, stop, None, **kwargs))
        text = "".join(str(chunk.text) for chunk in chunks)
        message = AIMessage(text, usage_metadata=chunks[-1].message.usage_metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "adding"
