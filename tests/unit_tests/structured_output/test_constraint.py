"""Sampled answers of random schemas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

LEAF = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 2, "maxLength": 9},
        {"type": "string", "pattern": "^[a-c]{2}-[0-9]+$"},
        {"type": "integer"},
        {"type": "integer", "minimum": 5, "maximum": 70},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["one", "two words", 3, None]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ]
)


NAMES = st.sampled_from(["a", "be", "some name", "ü", "x-y", 'quo"te'])


def an_object(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def build(properties: dict[str, Any], optional: int) -> dict[str, Any]:
        required = sorted(properties)[optional:]
        return {"type": "object", "properties": properties, "required": required}

    return st.builds(
        build, st.dictionaries(NAMES, inner, min_size=1, max_size=4), st.integers(0, 2)
    )


SCHEMAS = an_object(
    st.recursive(
        LEAF,
        lambda inner: st.one_of(
            an_object(inner),
            st.builds(lambda i: {"type": "array", "items": i, "minItems": 1}, inner),
        ),
        max_leaves=5,
    )
)


@pytest.mark.slow
@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schema=SCHEMAS, seed=st.integers(0, 99), heat=st.sampled_from([0.7, 5.0, 50.0]))
def test_a_sampled_answer_always_fits_its_schema(schema, seed, heat, student) -> None:
    format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
    try:
        message = student.invoke(
            "Make one.", response_format=format_, temperature=heat, seed=seed, max_tokens=90
        )
    except ValueError as error:  # said before anything is generated
        assert "raise max_tokens" in str(error) or "context holds" in str(error)
        return
    jsonschema.validate(json.loads(message.text), schema)
    assert message.usage_metadata["output_tokens"] <= 90


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["integer", "number"])
def test_a_number_before_another_property_has_an_end(kind, student) -> None:
    schema = {
        "type": "object",
        "properties": {"first": {"type": kind}, "second": {"type": kind}},
        "required": ["first", "second"],
    }
    format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert 0 < student.check([HumanMessage("Two numbers.")], response_format=format_) < 40
    for seed in range(3):
        message = student.invoke(
            "Two numbers.", response_format=format_, temperature=50.0, seed=seed, max_tokens=40
        )
        jsonschema.validate(json.loads(message.text), schema)


@pytest.mark.slow
def test_a_recursive_schema_ends_in_time(student) -> None:
    node = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["children"],
    }
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
    for seed in range(3):
        message = student.invoke(
            "A tree.", response_format=format_, temperature=9.0, seed=seed, max_tokens=120
        )
        jsonschema.validate(json.loads(message.text), schema)
