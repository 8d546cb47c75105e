"""JSON schemas and tools -> grammars, and which beginning of a text a grammar allows.

The grammar engine is llguidance, an extra of this package. It works on bytes, so that text
from another model's tokenizer can be the beginning of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from langchain_gkt.texts.tool_text import CLOSE, OPEN

try:
    import llguidance
except ImportError as missing:
    raise ImportError(
        "structured output by the student needs llguidance; "
        'install it with: pip install "langchain-gkt[structured]"'
    ) from missing

# Enough for indents. Without a bound a small model might write blanks and nothing else.
_COMPACT: Any = {"whitespace_pattern": r"[ \t\r\n]{0,32}"}
_MOST_KEPT = 2**15
"""Most characters of a schema whose grammar is kept for the next call: users' may be megabytes."""
_BYTES = llguidance.LLTokenizer("byte")


def json_grammar(schema: dict[str, Any]) -> str:
    """Compile a JSON schema.

    Args:
        schema: A JSON schema; its root should be an object.

    Returns:
        A grammar for `GrammarConstraint` and `valid_prefix`.

    Raises:
        ValueError: If the schema is invalid or uses what cannot be enforced.
    """
    text = json.dumps(schema)
    return _kept_grammar(text) if len(text) <= _MOST_KEPT else _json_grammar(text)


def _json_grammar(schema: str) -> str:
    closed = _closed(json.loads(schema))
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(closed, defaults=_COMPACT)
    return _checked(grammar, "schema")


_kept_grammar = lru_cache(maxsize=64)(_json_grammar)


def _closed(schema: Any) -> Any:
    """Forbid properties that a schema does not name: a small model would invent some."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: {name: _closed(inner) for name, inner in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else _closed(value)
        if key in ("items", "prefixItems", "anyOf", "oneOf", "allOf")
        else value
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and "allOf" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def _moved(schema: Any, place: str) -> Any:
    """Have the references of a schema point to where it is a part of another."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    if isinstance(ref := schema.get("$ref"), str) and ref.startswith("#"):
        moved["$ref"] = place + ref[1:]
    return moved


def tool_grammar(
    tools: Sequence[dict[str, Any]], name: str | None, *, single_tokens: Collection[str] = ()
) -> str:
    """Compile the grammar of one tool call in the Hermes format.

    Args:
        tools: Tools in OpenAI's form.
        name: The tool that must be called, or None for any of them.
        single_tokens: Those of the marks ``<tool_call>`` and ``</tool_call>`` that are one added
            token each in the student's vocabulary, as in Qwen's; others are spelled as text.

    Returns:
        A grammar.

    Raises:
        ValueError: If there is no such tool, or its parameters cannot be enforced.
    """
    functions = [tool["function"] for tool in tools if "function" in tool]
    chosen = [function for function in functions if name in (None, function["name"])]
    if not chosen:
        known = ", ".join(function["name"] for function in functions)
        raise ValueError(
            f"tool_choice={name or 'any'!r} is none of the bound tools ({known}) that the student "
            "can call; name one of them"
        )
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": _moved(
                    _closed(function.get("parameters") or {"type": "object", "properties": {}}),
                    "#/properties/arguments",
                ),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in chosen
    ]
    objects = [json.dumps({**call, "x-guidance": _COMPACT}) for call in calls]
    rules = [f"call{i}: %json {text}" for i, text in enumerate(objects)]
    either = " | ".join(f"call{i}" for i in range(len(rules)))
    rules.append(f"call: {either}")
    spelled = _call_grammar([f'"{OPEN}"', f'"{CLOSE}"'], rules)
    _checked(spelled, "tools")  # added tokens are unknown to the byte tokenizer that checks
    marks = [m if m in single_tokens else f'"{m}"' for m in (OPEN, CLOSE)]
    return _call_grammar(marks, rules)


def _call_grammar(marks: Sequence[str], rules: Sequence[str]) -> str:
    start = rf'start: {marks[0]} "\n" call "\n" {marks[1]}'
    grammar: str = llguidance.LLMatcher.grammar_from_lark("\n".join([start, *rules]))
    return grammar


def _checked(grammar: str, field: str) -> str:
    invalid, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, _BYTES)
    if invalid:
        raise ValueError(
            f"{field} cannot be enforced: {'; '.join(messages)}. Change the {field}, or have the "
            "teacher alone write the answer: method='function_calling'"
        )
    return grammar


def valid_prefix(text: str, grammar: str) -> tuple[str, bool]:
    """Return the longest beginning of a text that a grammar allows.

    Args:
        text: Any text.
        grammar: A compiled grammar.

    Returns:
        That beginning, and whether it is a whole text of the grammar.
    """
    matcher = llguidance.LLMatcher(_BYTES, grammar, log_level=0)
    data = text.encode()
    count = matcher.try_consume_tokens(list(data))
    return data[:count].decode(errors="ignore"), bool(matcher.is_accepting())
