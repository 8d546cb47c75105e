"""Tool calls are read from text, however it is split."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
)
from support.models.fakes import MODELS
from support.models.scripted import TOOL_TEMPLATE
from transformers import (
    AutoTokenizer,
)

from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.tool_parsing import (
    FilteredParser,
    HermesToolParser,
    ResponseTemplateParser,
)
from langchain_gkt.teachers.tools import is_cut_tool_call
from langchain_gkt.texts.harmony import HarmonyFilter


def parsed(parser: Any, text: str, size: int) -> tuple[str, list[tuple[str, Any]]]:
    shown = "".join(parser.feed(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls = parser.finish()
    return shown + rest, [(call["name"], call["args"]) for call in calls]


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_hermes_calls_are_read_however_they_are_split(size) -> None:
    want = ("add", '{"a": 1, "b": 2}')
    assert parsed(HermesToolParser(), f"I see.\n{CALL}\n{CALL}", size) == ("I see.\n", [want, want])
    assert parsed(HermesToolParser(), "1 <too 2 <tool", size) == ("1 <too 2 <tool", [])


@pytest.mark.parametrize(
    "body",
    ['{"name": "add", "arguments": {"a": 1', '{"name": 3, "arguments": {}}', "[]", '{"name": "f"'],
)
def test_malformed_calls_are_invalid_and_whole(body) -> None:
    _, ((name, raw),) = parsed(HermesToolParser(), f"<tool_call>{body}", 4)
    assert name == ""
    chunk = AIMessageChunk(
        "", tool_call_chunks=[{"name": name, "args": raw, "id": "x", "index": None}]
    )
    assert not chunk.tool_calls
    assert "".join(body.split()) in "".join(chunk.invalid_tool_calls[0]["args"].split())


NESTED = "[" * 5_000
"""As a small model writes that has got stuck. Python's reader of JSON gives up on it."""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (HermesToolParser, f"<tool_call>{NESTED}"),
        (
            lambda: FilteredParser(HarmonyFilter("<|start|>assistant")),
            f"<|channel|>commentary to=functions.add<|message|>{NESTED}<|call|>",
        ),
    ],
)
def test_a_call_of_endless_brackets_is_invalid_and_whole(make, text) -> None:
    shown, ((name, raw),) = parsed(make(), text, len(text))
    assert (shown, name) == ("", "")
    assert raw.endswith(NESTED)


def test_endless_brackets_without_tags_stay_text() -> None:
    text = f'{{"name": "add", "arguments": {NESTED}'
    assert parsed(HermesToolParser(["add"]), text, len(text)) == (text, [])


TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "thinking": {"open": "<think>", "close": "</think>"},
        "content": {},
        "tool_calls": {
            "open": "[CALL]",
            "close": "[/CALL]",
            "content": "json",
            "repeats": True,
            "transform": {"type": "function", "function": "{content}"},
        },
    },
}


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_tokenizers_own_template_is_used(size) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template, tokenizer.response_template = TOOL_TEMPLATE, TEMPLATE
    prompt, _ = PromptBuilder(tokenizer).build([HumanMessage("x")])

    def parser() -> ResponseTemplateParser:
        return ResponseTemplateParser(tokenizer, prompt, [])

    text = '<think>hm</think>I see.[CALL]{"name": "add", "arguments": {"a": 1}}[/CALL]'
    assert parsed(parser(), text, size) == ("I see.", [("add", '{"a": 1}')])
    shown, ((name, raw),) = parsed(parser(), 'No.[CALL]{"name": [/CALL]', size)
    assert (shown, name) == ("No.", "")
    assert '{"name": [/CALL]' in raw
    text = '[CALL]{"name": "add", "arguments": "half {"}[/CALL]'
    assert parsed(parser(), text, size) == ("", [("", text)])


BARE = '{"name": "add", "arguments": {"a": 1}}'


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    "text", [BARE, f"```json\n{BARE}\n```\n", f"```\n{BARE}```", f"\n {BARE} "]
)
def test_a_whole_answer_of_plain_json_is_a_call(text, size) -> None:
    assert parsed(HermesToolParser(["add"]), text, size) == ("", [("add", '{"a": 1}')])


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    "text",
    [
        f"So: {BARE}",
        f"{BARE} and more",
        f"```json\n{BARE}\n```\nThere.",
        BARE.replace("add", "sub"),
        BARE[:-2],
        '{"name": "add"}',
        '{"name": "add", "arguments": [1]}',
        '{"name": "Tom", "age": 3}',
    ],
)
def test_other_json_stays_text(text, size) -> None:
    assert parsed(HermesToolParser(["add"]), text, size) == (text, [])


def test_tags_are_read_after_held_text_too() -> None:
    text = '{"name": "add"} ' + CALL
    shown, calls = parsed(HermesToolParser(["add"]), text, 3)
    assert (shown.strip(), [name for name, _ in calls]) == ('{"name": "add"}', ["add"])


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ('```json\n{"name": "ad', True),
        ('{"name": "add", "arguments": {"a"', True),
        ("<tool_call>\n{", True),
        ('{"name": "Tom", "a', False),
        ('I will use {"name": "add"', False),
    ],
)
def test_guidance_that_ends_inside_a_call_is_a_broken_off_call(text, cut) -> None:
    reply = AIMessage(text, response_metadata={"finish_reason": "length"})
    assert (
        is_cut_tool_call(reply, 10, tools=[{"type": "function", "function": {"name": "add"}}])
        is cut
    )
    assert not is_cut_tool_call(reply, 10, tools=[])
