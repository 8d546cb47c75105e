"""Reads tool calls out of a student's text, while the text is generated."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection
from typing import Any

from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_gkt.texts.stop_strings import StopStringFilter
from langchain_gkt.texts.tool_text import CLOSE, OPEN, may_be_call, whole_call

_CALL = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", re.DOTALL)


class HermesToolParser:
    """Reads ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

    The format of Hermes and Qwen models. It is the default for a tokenizer without a
    ``response_template`` of its own. Small models leave the tags out: a whole answer that is
    such an object, bare or in a code fence, is a call, too.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        """Start with no text.

        Args:
            names: Tools that may be called without the tags; none if the answer has begun.
        """
        self._names, self._held = names, ""
        self._text = StopStringFilter((OPEN,))
        self._seen, self._shown = "", 0
        self._opened = False

    def feed(self, text: str) -> str:
        """Take new text.

        Args:
            text: Text that follows what was fed before.

        Returns:
            The part that is certain to be no tool call.
        """
        if self._names:
            self._held += text
            if may_be_call(self._held, self._names):
                return ""
            text, self._held, self._names = self._held, "", ()
        self._seen += text
        if self._opened:
            return ""
        shown, self._opened = self._text.feed(text)
        self._shown += len(shown)
        return shown

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """End the text.

        Returns:
            Text that was held back, and the tool calls. A malformed call has its whole text as
            arguments, which are no JSON, so that LangChain reports it as an invalid call.
        """
        if self._held:
            if call := whole_call(self._held, self._names):
                return "", [_call_of(call)]
            self._names, held = (), self._held
            self._held = ""
            shown = self.feed(held)
            rest, calls = self.finish()
            return shown + rest, calls
        if not self._opened:
            return self._text.flush(), []
        rest = self._seen[self._shown :]
        return _CALL.sub("", rest).rstrip(), [_read_call(body) for body in _CALL.findall(rest)]


class ResponseTemplateParser:
    """Reads the format that a tokenizer's ``response_template`` describes, with transformers."""

    def __init__(self, tokenizer: Any, prompt: list[int], tools: list[dict[str, Any]]) -> None:
        """Start at the end of a prompt.

        Args:
            tokenizer: A tokenizer with a ``response_template``.
            prompt: Ids of the prompt and of the answer's beginning.
            tools: The tools, in OpenAI's form.
        """
        self._parser = tokenizer.get_response_parser(prefix=prompt, tools=tools)
        self._raw, self._broken = "", False

    def feed(self, text: str) -> str:
        """Take new text, control tokens included; see `HermesToolParser.feed`."""
        self._raw += text
        if self._broken:
            return ""
        shown = ""
        try:
            for character in text:  # one by one: text before a malformed call is kept
                shown += _content(self._parser.feed(character))
        except ValueError:  # a call that the parser cannot read
            self._broken = True
        return shown

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """End the text; see `HermesToolParser.finish`."""
        if self._broken:
            return "", [_chunk("", self._raw)]
        try:
            message, events = self._parser.finalize()
        except ValueError:
            return "", [_chunk("", self._raw)]
        calls = message.get("tool_calls") or []
        return _content(events), [_call_of(call) for call in calls]


class AnswerParser:
    """Reads one answer: its text up to a stop string, and its tool calls."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: list[int],
        tools: list[dict[str, Any]],
        stop: tuple[str, ...],
        *,
        has_begun: bool = False,
    ) -> None:
        """Choose the tool parser that fits the tokenizer.

        Args:
            tokenizer: The student's tokenizer.
            prompt: Ids of the prompt and of the answer's beginning.
            tools: The tools, in OpenAI's form.
            stop: Strings that end the text.
            has_begun: Whether the answer's beginning is written already.
        """
        names = () if has_begun else [tool["function"]["name"] for tool in tools]
        self._parser: HermesToolParser | ResponseTemplateParser = HermesToolParser(names)
        if getattr(tokenizer, "response_template", None):
            self._parser = ResponseTemplateParser(tokenizer, prompt, tools)
        self._stop = StopStringFilter(stop)

    def read(self, text: str, *, last: bool) -> tuple[str, list[ToolCallChunk], bool]:
        """Take new text.

        Args:
            text: Text that follows what was read before.
            last: Whether it is the last.

        Returns:
            Text to show, tool calls, and whether a stop string was reached.
        """
        calls: list[ToolCallChunk] = []
        shown, stopped = self._stop.feed(self._parser.feed(text))
        if last and not stopped:
            rest, calls = self._parser.finish()
            more, stopped = self._stop.feed(rest)
            shown += more if stopped else more + self._stop.flush()
        return shown, calls, stopped and not calls


def _content(events: list[dict[str, Any]]) -> str:
    return "".join(
        event["text"]
        for event in events
        if event["type"] == "region_chunk" and event["field"] == "content"
    )


def _read_call(body: str) -> ToolCallChunk:
    try:
        return _call_of(json.loads(body))
    except ValueError:
        return _chunk("", f"{OPEN}{body}")


def _call_of(call: Any) -> ToolCallChunk:
    function = call.get("function", call) if isinstance(call, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        arguments = function.get("arguments", function.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if isinstance(arguments, dict):
            return _chunk(function["name"], json.dumps(arguments, ensure_ascii=False))
    return _chunk("", f"{OPEN}{json.dumps(call, ensure_ascii=False)}")


def _chunk(name: str, arguments: str) -> ToolCallChunk:
    return tool_call_chunk(
        name=name, args=arguments, id=f"call_{uuid.uuid4().hex[:24]}", index=None
    )
