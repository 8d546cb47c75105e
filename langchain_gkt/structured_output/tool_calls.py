"""When two sets of tool calls are equal, and whether they keep to their tools' schemas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_gkt.structured_output.schema import in_order, target_of


def fitting_calls(
    calls: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """Put the arguments of calls in the order of their tools' schemas, with integers as such.

    None if a tool is not bound, or arguments break its schema or cannot be checked. Needs
    llguidance (extra ``structured``).
    """
    from langchain_gkt.structured_output.grammar import json_grammar, valid_prefix

    schemas, fitting = _schemas(tools), []
    for call in calls:
        if (schema := schemas.get(call["name"])) is None:
            return None
        arguments = in_order(call["arguments"], schema, schema)
        try:
            text = json.dumps(arguments, ensure_ascii=False)
            fits = valid_prefix(text, json_grammar(schema)) == (text, True)
        except (ValueError, RecursionError):  # half a character, or a schema without a grammar
            fits = False
        if not fits:
            return None
        fitting.append({"name": call["name"], "arguments": arguments})
    return fitting


def calls_key(calls: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str:
    """Return a key that is equal for calls that do the same.

    The order of calls and of properties makes no difference. An omitted argument equals its
    default. 1 and 1.0 are the same, 1 and true are not. The calls come from `fitting_calls`.
    """
    schemas = _schemas(tools)
    filled = [
        [call["name"], _filled(call["arguments"], schemas[call["name"]], schemas[call["name"]])]
        for call in calls
    ]
    return json.dumps(sorted(json.dumps(item, sort_keys=True) for item in filled))


def _schemas(tools: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    nothing = {"type": "object", "properties": {}}
    functions = [tool["function"] for tool in tools if "function" in tool]
    return {function["name"]: function.get("parameters") or nothing for function in functions}


def _filled(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    """Add the defaults of omitted properties, and write whole numbers as integers."""
    schema = schema if isinstance(schema, dict) else {}
    if str(schema.get("$ref", "")).startswith("#/"):
        schema = target_of(schema["$ref"], root)
    if isinstance(value, list):
        return [_filled(item, schema.get("items"), root) for item in value]
    if isinstance(value, dict):
        known = schema.get("properties") or {}
        left_out = {
            name: inner["default"]
            for name, inner in known.items()
            if name not in value and isinstance(inner, dict) and "default" in inner
        }
        return {
            name: _filled(item, known.get(name), root)
            for name, item in {**left_out, **value}.items()
        }
    return int(value) if isinstance(value, float) and value.is_integer() else value
