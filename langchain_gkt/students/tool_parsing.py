"""Tool calls a student writes: out of its text, as the text comes."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_gkt.stop_strings import StopStringFilter

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_CALL = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", re.DOTALL)


class HermesParser:
    """Reads ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

    The format of Hermes and Qwen models, and the default where a tokenizer carries no
    ``response_template`` of its own.
    """

    def __init__(self) -> None:
        """Begin with no text."""
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
        self._seen += text
        if self._opened:
            return ""
        shown, self._opened = self._text.feed(text)
        self._shown += len(shown)
        return shown

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """End the text.

        Returns:
            Text that was held back, and the tool calls. The arguments of a malformed one are
            the text as it was written, which no JSON parser takes for arguments.
        """
        if not self._opened:
            return self._text.flush(), []
        rest = self._seen[self._shown :]
        return _CALL.sub("", rest).rstrip(), [_read_call(body) for body in _CALL.findall(rest)]


class TemplateParser:
    """Reads whatever format a tokenizer's ``response_template`` describes, by transformers."""

    def __init__(self, tokenizer: Any, prompt: list[int], tools: list[dict[str, Any]]) -> None:
        """Begin where a prompt ends.

        Args:
            tokenizer: A tokenizer with a ``response_template``.
            prompt: Ids of the prompt and of the answer's beginning.
            tools: The tools, in OpenAI's form.
        """
        self._parser = tokenizer.get_response_parser(prefix=prompt, tools=tools)
        self._raw, self._broken = "", False

    def feed(self, text: str) -> str:
        """Take new text, control tokens included; see `HermesParser.feed`."""
        self._raw += text
        if self._broken:
            return ""
        shown = ""
        try:
            for character in text:  # so that a call that fails loses no text before it
                shown += _content(self._parser.feed(character))
        except ValueError:  # a call that the template's own parser cannot read
            self._broken = True
        return shown

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """End the text; see `HermesParser.finish`."""
        if self._broken:
            return "", [_chunk("", self._raw)]
        try:
            message, events = self._parser.finalize()
        except ValueError:
            return "", [_chunk("", self._raw)]
        calls = message.get("tool_calls") or []
        return _content(events), [_call_of(call) for call in calls]


class CallReader:
    """Reads one answer: its text up to a stop string, and its tool calls."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: list[int],
        tools: list[dict[str, Any]],
        stop: tuple[str, ...],
    ) -> None:
        """Choose the format by the tokenizer.

        Args:
            tokenizer: The student's tokenizer.
            prompt: Ids of the prompt and of the answer's beginning.
            tools: The tools, in OpenAI's form.
            stop: Strings that end the text.
        """
        self._parser: HermesParser | TemplateParser = HermesParser()
        if getattr(tokenizer, "response_template", None):
            self._parser = TemplateParser(tokenizer, prompt, tools)
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
