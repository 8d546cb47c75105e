"""Schemas that refer to themselves are held at every depth."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_gkt.structured_output.grammar import json_grammar, tool_grammar, valid_prefix
from langchain_gkt.structured_output.schema import binding, in_order, schema_in
from langchain_gkt.structured_output.tools import in_openai_form


class Node(BaseModel):
    """A node of a tree."""

    name: str
    children: list[Node]


class Tree(BaseModel):
    """A tree."""

    root: Node


CHAIN = {
    "title": "Chain",
    "type": "object",
    "properties": {"v": {"type": "string"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["v", "next"],
}


@pytest.mark.parametrize(
    ("schema", "name", "good", "bad"),
    [
        (
            Node,
            "Node",
            '{"name":"a","children":[{"name":"b","children":[]}]}',
            '{"name":"a","children":[3',
        ),
        (
            Node.model_json_schema(),
            "answer",
            '{"name":"a","children":[{"name":"b","children":[]}]}',
            '{"name":"a","children":[{"x',
        ),
        (
            Tree,
            "Tree",
            '{"root":{"name":"a","children":[]}}',
            '{"root":{"name":"a","children":[{"x',
        ),
        (CHAIN, "Chain", '{"v":"a","next":{"v":"b","next":null}}', '{"v":"a","next":{"x'),
    ],
)
def test_inner_objects_are_held(schema: Any, name: str, good: str, bad: str) -> None:
    response_format = binding(schema, "json_schema")["response_format"]
    assert response_format["json_schema"]["name"] == name
    grammar = json_grammar(schema_in(response_format))
    assert valid_prefix(good, grammar) == (good, True)
    assert valid_prefix(bad, grammar) == (bad[:-1], False)


def test_inner_objects_are_put_in_order() -> None:
    value = {"next": {"next": None, "v": "b"}, "v": "a"}
    ordered = in_order(value, CHAIN, CHAIN)
    assert list(ordered["next"]) == ["v", "next"]


def make_node(root: Node) -> str:
    """Make a node."""
    return root.name


NODE_SCHEMA = Node.model_json_schema()
GOOD = '{"name":"a","children":[{"name":"b","children":[]}]}'


@pytest.mark.parametrize(
    ("given", "name", "arguments"),
    [
        (Node, "Node", GOOD),
        (Tree, "Tree", f'{{"root":{GOOD}}}'),
        (make_node, "make_node", f'{{"root":{GOOD}}}'),
        (tool(make_node), "make_node", f'{{"root":{GOOD}}}'),
        ({"title": "Node", **NODE_SCHEMA}, "Node", GOOD),
        (CHAIN, "Chain", '{"v":"a","next":{"v":"b","next":null}}'),
        (
            {"type": "function", "function": {"name": "f", "parameters": Tree.model_json_schema()}},
            "f",
            f'{{"root":{GOOD}}}',
        ),
    ],
)
def test_parameters_of_tools_are_held_at_every_depth(given: Any, name: str, arguments: str) -> None:
    converted = in_openai_form(given)
    assert converted["function"]["name"] == name
    assert converted["function"]["parameters"]["type"] == "object"
    grammar = tool_grammar([converted], None)
    call = f'<tool_call>\n{{"name":"{name}","arguments":{arguments}}}\n</tool_call>'
    assert valid_prefix(call, grammar) == (call, True)
    bad = call.replace('"b"', "3")
    assert valid_prefix(bad, grammar) == (bad[: bad.index("3")], False)


def test_what_langchain_converts_whole_is_left_to_it() -> None:
    class Flat(BaseModel):
        """Flat."""

        a: int

    assert in_openai_form(Flat) == convert_to_openai_tool(Flat)


ENDLESS = [
    {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
    {
        "type": "object",
        "properties": {"d": {"type": "array", "items": {"type": "integer"}, "minItems": 5000}},
        "required": ["d"],
    },
]


@pytest.mark.parametrize("schema", ENDLESS)
def test_a_schema_without_an_end_in_sight_is_refused(schema: Any, student: Any) -> None:
    format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
    for ask in (student.check, student.invoke):
        with pytest.raises(
            ValueError, match=r"response_format.*cannot be enforced.*Lower minItems"
        ):
            ask([HumanMessage("x")], response_format=format_)


class Endless(TypedDict):
    """LangChain cannot convert it."""

    inner: list[Endless]


def test_parameters_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tools: the parameters of 'Endless'.*pydantic class"):
        in_openai_form(Endless)
