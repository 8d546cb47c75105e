"""Schemas that refer to themselves are held at every depth."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from langchain_gkt.structured_output.grammar import json_grammar, valid_prefix
from langchain_gkt.structured_output.schema import binding, in_order, schema_in


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
