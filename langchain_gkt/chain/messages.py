"""Turns the models' replies into chunks of the chain's own answer, and joins them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import takewhile
from operator import add
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.json import parse_partial_json

_RETRACTS = "gkt_retracts"


def text_chunk(text: str, block: Mapping[str, Any] | None = None) -> ChatGenerationChunk:
    """Make a chunk of text, which continues a content block or is plain."""
    content: Any = [{**block, "text": text}] if block else text
    return ChatGenerationChunk(message=AIMessageChunk(content=content))


def text_blocks(
    text: str, reply: AIMessage, at: int, block: Mapping[str, Any] | None
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Split a text at the blocks of its reply, so that other blocks can keep their places.

    Args:
        text: The text.
        reply: The reply, or the part of it so far.
        at: Where in the reply's leading text the text begins.
        block: The block of the last shown text. None for a reply of plain text.
    """
    for item in reply.content if isinstance(reply.content, list) else ():
        if (held := _text_of(item)) is None or not text:
            break
        part, at = text[: max(0, len(held) - at)], max(0, at - len(held))
        if part:
            if isinstance(item, dict) and "index" in item:
                block = {"type": "text", "index": item["index"]}
            yield part, block
            text = text[len(part) :]
    if text:
        yield text, block


def retraction() -> ChatGenerationChunk:
    """Make a chunk that takes back the output so far of a call that is not streamed."""
    return ChatGenerationChunk(
        message=AIMessageChunk(content=""), generation_info={_RETRACTS: True}
    )


class RepeatedWhitespace:
    """Drops a reply's leading whitespace if it is also at the end of the shown text."""

    def __init__(self, whitespace: str) -> None:
        """Prepare for one reply of a model that was not given this whitespace."""
        self._whitespace, self._held = whitespace, ""

    def drop(self, text: str, *, last: bool = False) -> str:
        """Return the text of the reply's next part that is certain now.

        Whitespace is held until its length is known, or the part is the last.
        """
        self._held += text
        if not last and not self._held.strip() and len(self._held) < len(self._whitespace):
            return ""
        while not self._held.startswith(self._whitespace):
            self._whitespace = self._whitespace[1:]
        new, self._held, self._whitespace = self._held[len(self._whitespace) :], "", ""
        return new


def leading_text(reply: AIMessage) -> str:
    """Return the text that a reply begins with, up to its first other block."""
    if isinstance(reply.content, str):
        return reply.content
    return "".join(takewhile(lambda text: text is not None, map(_text_of, reply.content)))


def _text_of(block: Any) -> Any:
    """Return the text of a content block. None if it is not text."""
    if isinstance(block, str):
        return block
    return block.get("text") or "" if block.get("type") == "text" else None


def rest_of(reply: AIMessage, shown: str) -> Any:
    """Return the part of a reply's content behind the text that has been shown.

    Returns:
        Text, or content blocks in their order if the reply had blocks.
    """
    if isinstance(reply.content, str):
        return reply.content[len(shown) :]
    left, rest = len(shown), []
    for block in reply.content:
        text = _text_of(block)
        if not left or text is None:
            rest.append(block)
            continue
        new, left = text[left:], max(0, left - len(text))
        more = isinstance(block, dict) and block.keys() - {"type", "text", "index"}
        if new or (more and "index" in block):  # such as sources, without which the text was shown
            rest.append(new if isinstance(block, str) else {**block, "text": new})
    return rest


def continue_after(shown: str, reply: AIMessage) -> AIMessage:
    """Make a second reply begin with the text of the first, which has been shown.

    A tool call keeps its other blocks.
    """
    text = str(reply.text)
    if text.startswith(shown):
        return reply
    if reply.tool_calls or reply.invalid_tool_calls or not text:
        content: Any = shown
        if isinstance(reply.content, list):
            other: list[Any] = [block for block in reply.content if _text_of(block) is None]
            content = [{"type": "text", "text": shown}]
            for place, block in enumerate(other, 1):
                content.append({**block, "index": place} if "index" in block else block)
        return reply.model_copy(update={"content": content})
    return reply.model_copy(update={"content": f"{shown}\n\n{text}"})


def tool_call_chunk_of(reply: AIMessage, content: Any) -> ChatGenerationChunk:
    """Make a chunk of a reply's tool calls, unchanged. A broken one stays broken."""
    calls: dict[str, Any]
    if isinstance(reply, AIMessageChunk):  # the arguments' own text
        parts = [{**part, "args": _strict(part["args"])} for part in reply.tool_call_chunks]
        calls = {"tool_call_chunks": parts}
    else:
        invalid = reply.invalid_tool_calls
        invalid_calls = [{**call, "args": _strict(call["args"], invalid=True)} for call in invalid]
        calls = {"tool_calls": reply.tool_calls, "invalid_tool_calls": invalid_calls}
    return ChatGenerationChunk(
        message=AIMessageChunk(content=content, additional_kwargs=reply.additional_kwargs, **calls)
    )


def _strict(arguments: str | None, *, invalid: bool = False) -> str | None:
    """Keep langchain-core from completing truncated arguments, which an agent would run.

    It would also complete an invalid call whose arguments are an object, or nothing.
    """
    if not arguments and not invalid:
        return arguments
    try:
        whole = json.loads(arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        try:
            parse_partial_json(arguments or "")
        except (ValueError, RecursionError):
            return arguments
    else:
        if not (invalid and isinstance(whole, dict)):
            return arguments
    return f"!{arguments or ''}"


def provider_of(reply: AIMessage | None) -> str:
    """Return the provider whose format the content has: the teacher's if it holds blocks."""
    own = reply.response_metadata.get("model_provider") if reply else None
    return str(own) if own and reply and isinstance(reply.content, list) else "langchain-gkt"


def join_chunks(chunks: list[ChatGenerationChunk]) -> ChatResult:
    """Join all chunks of a call into one message. Tool calls are not parsed again."""
    taken_back = [i for i, chunk in enumerate(chunks) if _RETRACTS in (chunk.generation_info or {})]
    chunks = chunks[taken_back[-1] :] if taken_back else chunks
    whole = reduce(add, chunks).message
    fields = whole.model_dump(include={"content", "additional_kwargs", "usage_metadata"})
    calls: dict[str, list[Any]] = {
        name: [call for chunk in chunks for call in getattr(chunk.message, name)]
        for name in ("tool_calls", "invalid_tool_calls")
    }
    message = AIMessage(**fields, **calls, response_metadata=chunks[-1].message.response_metadata)
    return ChatResult(generations=[ChatGeneration(message=message)])
