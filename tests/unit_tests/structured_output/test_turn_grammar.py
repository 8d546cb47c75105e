"""A turn that may call tools is held to a tool's schema once it names it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool
from support.models.scripted import TOOL_TEMPLATE, add, saying

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.structured_output.grammar import _other_than, turn_grammar, valid_prefix
from langchain_gkt.structured_output.tools import in_openai_form


@tool
def adder(words: str) -> str:
    """Join words."""
    return words


TOOLS = [in_openai_form(add), in_openai_form(adder)]
GRAMMAR = turn_grammar(TOOLS)
ADD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
ADDER = '{"name": "adder", "arguments": {"words": "x"}}'


@pytest.mark.parametrize(
    "text",
    [
        "No tool is needed, `add` is none.",
        "```python\nadd(1, 2)\n```",
        "<b>Well</b>",
        "Like this: ```json\n[1]\n```",
        ADD,
        ADDER,
        f"{{{ADD}}}",
        f"```json\n{ADD}\n```",
        f"```json\n{{{ADD}}}\n```",
        '{\n  "name": "add",\n  "arguments": {\n    "a": 1,\n    "b": 2\n  }\n}',
        f"<tool_call>\n{ADD}\n</tool_call>\n<tool_call>\n{ADDER}\n</tool_call>",
        '{"name": "addition", "arguments": {"q": ["anything"]}}',
        '{"name": "ad", "arguments": {}}',
    ],
)
def test_what_may_be_written(text) -> None:
    assert valid_prefix(text, GRAMMAR) == (text, True)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (ADD.replace("1", '"1"'), '{"name": "add", "arguments": {"a": '),
        (ADDER.replace("words", "word"), '{"name": "adder", "arguments": {"word'),
        ('{"x": 1}', '{"'),
        ("```json\n[1]\n```", "```json\n"),
    ],
)
def test_what_is_refused(text, fits) -> None:
    assert valid_prefix(text, GRAMMAR) == (fits, False)


@settings(max_examples=20)
@given(st.lists(st.text("ab.-"), min_size=1, max_size=4), st.text("ab.-"))
def test_other_names_are_all_but_those_that_are_bound(names, name) -> None:
    found = re.fullmatch(_other_than(names), name)
    assert (found is None) == (name in names)


@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "{{}}"])
def test_a_student_that_breaks_a_schema_is_held_to_it(form, tmp_path) -> None:
    says = form.replace("{}", ADD.replace("1", '"one"'), 1)
    model, tokenizer = saying(tmp_path, says, TOOL_TEMPLATE)
    student = HuggingFaceStudent(model=model, tokenizer=tokenizer, max_tokens=60)
    arguments: dict[str, Any] = student.turn_arguments(TOOLS[:1])
    held, free = (
        student.invoke("add 1 and 2", **{**arguments, "hold_calls": hold}) for hold in (True, False)
    )
    assert free.tool_calls[0]["args"]["a"] == "one"
    for call in held.tool_calls:
        assert type(call["args"]["a"]) is int
    assert '"one' not in held.text
    student.close()


def test_a_schema_that_cannot_be_enforced_and_a_begun_answer_are_not_held(tmp_path) -> None:
    odd = {"type": "object", "properties": {"x": {"not": {"type": "string"}}}}
    tools = [{"type": "function", "function": {"name": "odd", "parameters": odd}}]
    says = '{"name": "odd", "arguments": {"x": "s"}}'
    model, tokenizer = saying(tmp_path, says, TOOL_TEMPLATE)
    student = HuggingFaceStudent(model=model, tokenizer=tokenizer, max_tokens=60)
    assert student.invoke("odd", **student.turn_arguments(tools)).tool_calls[0]["args"] == {
        "x": "s"
    }
    begun = [("human", "odd"), ("ai", '{"name": "odd"')]
    assert student.invoke(begun, **student.turn_arguments(TOOLS)).text == says[len(begun[1][1]) :]
    student.close()
