"""Reads a student's answer while it is generated: text, tool calls and reasoning."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_gkt.students.prompting import WrittenPrompt
from langchain_gkt.students.tokenization.chat_template import ChatTemplate
from langchain_gkt.texts.harmony import HarmonyFilter
from langchain_gkt.texts.reasoning import ReasoningFilter, is_tag
from langchain_gkt.texts.stop_strings import StopStringFilter
from langchain_gkt.texts.tool_text import CLOSE, OPEN, json_value, may_be_call, whole_call

_UNREADABLE = (ValueError, RecursionError)
"""What malformed calls raise. Small models nest brackets without end."""
_CALL = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", re.DOTALL)


class HermesToolParser:
    """Reads ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

    The format of Hermes and Qwen models. It is the default for a tokenizer without a
    ``response_template`` of its own. Small models leave the tags out. So a whole answer that is
    such an object, bare or in a code fence, is a call, too.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        """Start with no text. The named tools may be called without the tags."""
        self._names, self._held = names, ""
        self._text, self._calls, self._opened = StopStringFilter((OPEN,)), "", False

    def feed(self, text: str) -> str:
        """Take the text that follows, and return the part that is certain to be no tool call."""
        if self._names:
            self._held += text
            if may_be_call(self._held, self._names):
                return ""
            text, self._held, self._names = self._held, "", ()
        if self._opened:
            self._calls += text
            return ""
        shown, self._opened = self._text.feed(text)
        return shown

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """Return the text that was held back, and the tool calls.

        A malformed call has its whole text as arguments, which are not JSON, so LangChain reports
        it as an invalid call.
        """
        if self._held:
            if call := whole_call(self._held, self._names):
                return "", [_call_of(call)]
            self._names, held = (), self._held
            self._held = ""
            shown = self.feed(held)
            rest, calls = self.finish()
            return shown + rest, calls
        rest = self._text.flush()
        if not self._opened:
            return rest, []
        rest += self._calls
        calls = [_read(partial(json_value, body), f"{OPEN}{body}") for body in _CALL.findall(rest)]
        return _CALL.sub("", rest).rstrip(), calls


class ResponseTemplateParser:
    """Reads the format of a tokenizer's ``response_template``, with transformers."""

    def __init__(self, tokenizer: Any, prompt: list[int], tools: list[dict[str, Any]]) -> None:
        """Start at the end of a prompt, given by its ids and those of the answer's beginning."""
        self._parser = tokenizer.get_response_parser(prefix=prompt, tools=tools)
        self._raw, self._broken = "", False
        self.reasoning = ""
        """Text that belongs neither to the answer nor to a tool call."""

    def feed(self, text: str) -> str:
        """Take new text, control tokens included. See `HermesToolParser.feed`."""
        self._raw += text
        if self._broken:
            return ""
        shown = ""
        try:
            for character in text:  # one by one, so that text before a malformed call is kept
                shown += self._content(self._parser.feed(character))
        except _UNREADABLE:
            self._broken = True
        return shown

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """End the text. See `HermesToolParser.finish`."""
        if self._broken:
            return "", [_chunk("", self._raw)]
        try:
            message, events = self._parser.finalize()
            calls = [_call_of(call) for call in message.get("tool_calls") or []]
        except _UNREADABLE:
            return "", [_chunk("", self._raw)]
        return self._content(events), calls

    def _content(self, events: list[dict[str, Any]]) -> str:
        parts = [event for event in events if event["type"] == "region_chunk"]
        other = (p["text"] for p in parts if p["field"] not in ("content", "tool_calls"))
        self.reasoning += "".join(other)
        return "".join(part["text"] for part in parts if part["field"] == "content")


class FilteredParser:
    """Takes out reasoning, or messages on channels. The rest is text, or calls as Hermes writes."""

    def __init__(
        self, reasoning: ReasoningFilter | HarmonyFilter, tools: HermesToolParser | None = None
    ) -> None:
        """Start at the end of a prompt. No tools if none are offered, or channels hold calls."""
        self._filter, self._tools = reasoning, tools

    @property
    def reasoning(self) -> str:
        """The text that was taken out."""
        return self._filter.reasoning

    def feed(self, text: str) -> str:
        """Take new text, control tokens included. See `HermesToolParser.feed`."""
        text = self._filter.feed(text)
        return self._tools.feed(text) if self._tools and text else text

    def finish(self) -> tuple[str, list[ToolCallChunk]]:
        """End the text. See `HermesToolParser.finish`."""
        text = self._filter.finish()
        if isinstance(self._filter, HarmonyFilter):
            written = self._filter.calls
            return text, [_read(partial(_named, *call), ": ".join(call)) for call in written]
        if self._tools is None:
            return text, []
        text = self._tools.feed(text)
        rest, calls = self._tools.finish()
        return text + rest, calls


def keeps_marks(tokenizer: Any, template: ChatTemplate) -> bool:
    """Whether control tokens separate an answer's parts, so that reading it needs them."""
    if getattr(tokenizer, "response_template", None) or template.is_harmony:
        return True
    return any(map(is_tag, set(tokenizer.all_special_tokens)))


class AnswerParser:
    """Reads one answer: its text up to a stop string, its tool calls and its reasoning."""

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate,
        prompt: WrittenPrompt,
        tools: Sequence[dict[str, Any]],
        stop: tuple[str, ...],
        *,
        is_held: bool = False,
    ) -> None:
        """Choose the reader for the answers of a tokenizer, with the offered tools.

        Where a grammar holds the answer, its calls have the form of Hermes.
        """
        self._parser: ResponseTemplateParser | FilteredParser
        if getattr(tokenizer, "response_template", None) and not is_held:
            ids = [*prompt.ids, *prompt.answer_prefix]
            self._parser = ResponseTemplateParser(tokenizer, ids, list(tools))
        elif template.is_harmony and not is_held:
            self._parser = FilteredParser(HarmonyFilter(prompt.header))
        else:
            has_begun = bool(prompt.answer_prefix)
            names = () if has_begun else [tool["function"]["name"] for tool in tools]
            reasoning = ReasoningFilter(template.opened(prompt.header), has_begun=has_begun)
            calls = HermesToolParser(names) if tools else None
            self._parser = FilteredParser(reasoning, calls)
        self._stop, self._tokenizer, self._offers = StopStringFilter(stop), tokenizer, bool(tools)
        self.may_stop = bool(stop)
        """Whether the text may end before the engine does."""
        # They stay in the text to separate its parts, and are not shown.
        marks = tokenizer.all_special_tokens if keeps_marks(tokenizer, template) else ()
        self._marks = re.compile("|".join(map(re.escape, filter(None, marks))) or r"(?!)")

    def read(self, text: str, *, last: bool) -> tuple[str, list[ToolCallChunk], bool]:
        """Take the text that follows, perhaps the last.

        Returns:
            Text to show, tool calls, and whether a stop string was reached.
        """
        calls: list[ToolCallChunk] = []
        shown, stopped = self._stop.feed(self._marks.sub("", self._parser.feed(text)))
        if last and not stopped:
            rest, calls = self._parser.finish()
            calls = calls if self._offers else []  # nobody could carry them out
            more, stopped = self._stop.feed(self._marks.sub("", rest))
            shown += more if stopped else more + self._stop.flush()
        return shown, calls, stopped and not calls

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens the reasoning took that was left out so far."""
        reasoning = self._parser.reasoning
        if not reasoning:
            return 0
        return len(self._tokenizer(reasoning, add_special_tokens=False)["input_ids"])


def _read(value: Callable[[], Any], raw: str) -> ToolCallChunk:
    """Return the call that a function reads, or an invalid one of the raw text."""
    try:
        return _call_of(value())
    except _UNREADABLE:
        return _chunk("", raw)


def _named(name: str, arguments: str) -> dict[str, Any]:
    return {"name": name, "arguments": json.loads(arguments)}


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
