"""Calls as small models write them."""

from __future__ import annotations

import pytest

from langchain_gkt.texts.tool_text import may_be_call, whole_call, written_calls

ADD = {"name": "add", "arguments": {"a": 1}}
BARE = '{"name": "add", "arguments": {"a": 1}}'


@pytest.mark.parametrize(
    "text",
    [
        BARE,
        f"\n{{{BARE}}}\n",
        f"```json\n{BARE}\n```",
        f"```\n{BARE}\n```",
        f"```tool_call\n{BARE}\n```",
        f"```json\n{{{BARE}}}\n```",
        f"```json\n{BARE}\n}}\n```",
        f"<tool_call>\n{BARE}}}\n</tool_call>",
        f"I will add them:\n\n```json\n{BARE}\n```\nThat is all.",
        f"<tool_call>\n{BARE}\n</tool_call>",
        f"Well. <tool_call>{BARE}",
        f"[{BARE}]",
        '{"name": "add", "parameters": {"a": 1}}',
        '{"arguments": {"a": 1}, "name": "add"}',
        '{"name": "add", "arguments": "{\\"a\\": 1}"}',
        '{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}',
    ],
)
def test_a_call_is_read_in_every_form(text) -> None:
    assert written_calls(text) == [ADD]


@pytest.mark.parametrize(
    "text",
    [
        f"{BARE}\n{BARE}",
        f"{BARE}, {BARE}",
        f"[{BARE}, {BARE}]",
        f"```json\n{BARE}\n```\nand\n```json\n{BARE}\n```",
        f"<tool_call>\n{BARE}\n</tool_call>\n<tool_call>\n{BARE}\n</tool_call>",
    ],
)
def test_several_calls_are_all_read(text) -> None:
    assert written_calls(text) == [ADD, ADD]


@pytest.mark.parametrize(
    "text",
    ["", "No tool is needed.", '{"answer": 3}', "[1, 2]", "```python\nadd(1)\n```", "a {b} c"],
)
def test_a_text_that_calls_nothing(text) -> None:
    assert written_calls(text) == []


@pytest.mark.parametrize(
    "text",
    [BARE[:-1], f"```json\n{BARE[:-2]}\n```", "<tool_call>\nadd(1)\n</tool_call>", f"[{BARE}, 3]"],
)
def test_a_call_that_cannot_be_read(text) -> None:
    assert written_calls(text) is None


def test_doubled_braces_are_one_call_while_it_is_streamed() -> None:
    text = f"{{{BARE}}}"
    assert all(may_be_call(text[:end], ["add"]) for end in range(len(text)))
    assert whole_call(text, ["add"]) == ADD
    assert whole_call(text, ["note"]) is None
    assert whole_call(f"```json\n{BARE}\n}}\n```", ["add"]) == ADD
    assert whole_call(f"{BARE} and more", ["add"]) is None
    assert not may_be_call('{{"value": 1}}', ["add"])
