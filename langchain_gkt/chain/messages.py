"""Turns the models' replies into chunks of the chain's own answer, and joins them."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.json import parse_partial_json


def text_chunk(text: str) -> ChatGenerationChunk:
    """Make a chunk of text."""
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


class RepeatedBlank:
    """Drops the blank that a reply begins with if it has been shown already."""

    def __init__(self, blank: str) -> None:
        """Prepare for one reply.

        Args:
            blank: The blank at the end of what was shown, which the model was not given.
        """
        self._blank, self._held = blank, ""

    def drop(self, text: str, *, last: bool = False) -> str:
        """Return what is new of the next part of the reply.

        Args:
            text: The part.
            last: Whether nothing follows.

        Returns:
            Text that is certain now; blanks are held until it is known how many there are.
        """
        self._held += text
        if not last and not self._held.strip() and len(self._held) < len(self._blank):
            return ""
        while not self._held.startswith(self._blank):
            self._blank = self._blank[1:]
        new, self._held, self._blank = self._held[len(self._blank) :], "", ""
        return new


def rest_of(reply: AIMessage, shown: str) -> Any:
    """Return the part of a reply's content that has not been shown.

    Args:
        reply: The reply.
        shown: The text of it that has been shown.

    Returns:
        Text, or content blocks if the reply had blocks.
    """
    if not shown:
        return reply.content
    text = str(reply.text)[len(shown) :]
    if isinstance(reply.content, str):
        return text
    other = [b for b in reply.content if isinstance(b, dict) and b.get("type") != "text"]
    return [*([text] if text else []), *other]


def continue_after(shown: str, reply: AIMessage) -> AIMessage:
    """Make a second reply begin with the text of the first, which has been shown.

    Args:
        shown: The text of the first reply.
        reply: The second reply.

    Returns:
        A reply whose text begins with ``shown``.
    """
    text = str(reply.text)
    if text.startswith(shown):
        return reply
    if reply.tool_calls or reply.invalid_tool_calls or not text:
        return reply.model_copy(update={"content": shown})
    return reply.model_copy(update={"content": f"{shown}\n\n{text}"})


def tool_call_chunk_of(reply: AIMessage, content: Any) -> ChatGenerationChunk:
    """Make a chunk of a reply's tool calls, unchanged; a broken one never becomes a whole one.

    Args:
        reply: A reply with tool calls, whole or joined from chunks.
        content: The content to give with them.

    Returns:
        A chunk.
    """
    if isinstance(reply, AIMessageChunk):  # the arguments' own text
        calls: dict[str, Any] = {"tool_call_chunks": list(map(_strict, reply.tool_call_chunks))}
    else:
        broken = [
            tool_call_chunk(name=c["name"], args=c["args"], id=c["id"], index=None)
            for c in reply.invalid_tool_calls
        ]
        invalid = [
            {**c, "args": _strict(b)["args"]}
            for c, b in zip(reply.invalid_tool_calls, broken, strict=True)
        ]
        calls = {"tool_calls": reply.tool_calls, "invalid_tool_calls": invalid}
    return ChatGenerationChunk(
        message=AIMessageChunk(content=content, additional_kwargs=reply.additional_kwargs, **calls)
    )


def _strict(chunk: ToolCallChunk) -> ToolCallChunk:
    """Keep langchain-core from completing arguments that were cut off: an agent would run them."""
    arguments = chunk["args"]
    if not arguments:
        return chunk
    try:
        json.loads(arguments, strict=False)
    except ValueError:
        try:
            parse_partial_json(arguments)
        except ValueError:
            return chunk
        return {**chunk, "args": f"!{arguments}"}
    return chunk


def provider_of(reply: AIMessage | None) -> str:
    """Return the provider whose format the content has: the teacher's if it holds blocks."""
    own = reply.response_metadata.get("model_provider") if reply else None
    return str(own) if own and reply and isinstance(reply.content, list) else "langchain-gkt"


def join_chunks(chunks: list[ChatGenerationChunk]) -> ChatResult:
    """Join the chunks of a call into one message.

    Args:
        chunks: All of them, the last with usage and metadata.

    Returns:
        The message; tool calls are those of the chunks, not parsed again.
    """
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    fields = whole.message.model_dump(include={"content", "additional_kwargs", "usage_metadata"})
    calls: dict[str, list[Any]] = {
        name: [call for chunk in chunks for call in getattr(chunk.message, name)]
        for name in ("tool_calls", "invalid_tool_calls")
    }
    message = AIMessage(**fields, **calls, response_metadata=chunks[-1].message.response_metadata)
    return ChatResult(generations=[ChatGeneration(message=message)])
