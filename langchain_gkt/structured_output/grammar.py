"""JSON schemas and tools -> grammars, and the longest prefix of a text that a grammar allows.

The grammar engine is llguidance, an extra of this package. It works on bytes, so that text from
another model's tokenizer can be the beginning of an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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

# Enough for indents. Without a bound a small model might write only whitespace.
_COMPACT: Any = {"whitespace_pattern": r"[ \t\r\n]{0,32}"}
_MOST_KEPT = 2**15
"""Maximum characters of a schema whose grammar is kept. Users' schemas may be megabytes."""
_BYTES = llguidance.LLTokenizer("byte")


def json_grammar(schema: dict[str, Any]) -> str:
    """Compile a JSON schema of an object. Raises a `ValueError` if it cannot be enforced."""
    text = json.dumps(schema)
    return _kept_grammar(text) if len(text) <= _MOST_KEPT else _json_grammar(text)


def _json_grammar(schema: str) -> str:
    closed = _closed(json.loads(schema))
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(closed, defaults=_COMPACT)
    return _checked(grammar, "schema")


_kept_grammar = lru_cache(maxsize=64)(_json_grammar)


def _closed(schema: Any) -> Any:
    """Forbid properties that a schema does not name. A small model would invent some."""
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
    """Adjust the references of a schema to its place inside another."""
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
        single_tokens: The marks among ``<tool_call>`` and ``</tool_call>`` that are one added token
            each in the student's vocabulary, as in Qwen's. Others are spelled as text.

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
    start = r'start: OPEN "\n" call "\n" CLOSE'
    return _call_grammar(start, map(_call_schema, chosen), single_tokens)


def turn_grammar(tools: Sequence[dict[str, Any]], *, single_tokens: Collection[str] = ()) -> str:
    """Compile the grammar of a turn that may call tools: a text, or calls in a usual form.

    A call of one of the tools keeps to its schema. Unknown names are allowed. Forbidding them would
    turn an invented tool into a call of another.

    The arguments are as for `tool_grammar`. Raises a `ValueError` if parameters cannot be enforced.
    """
    return _turn_grammar(json.dumps(tools), tuple(single_tokens))


@lru_cache(maxsize=64)
def _turn_grammar(tools: str, single_tokens: tuple[str, ...]) -> str:
    functions = [tool["function"] for tool in json.loads(tools) if "function" in tool]
    other = _other_than([function["name"] for function in functions])
    unknown = _object_of({"type": "string", "pattern": f"^{other}$"}, {"type": "object"})
    return _call_grammar(_TURN, [*map(_call_schema, functions), unknown], single_tokens)


# An answer that begins an object or a fence of JSON is a call.
_TURN = r"""start: TEXT | one | "```json\n" one "\n```" | tagged ("\n" tagged)*
one: call | "{" call "}"
tagged: OPEN "\n" call "\n" CLOSE
TEXT: /([^`{<]|`[^`]|``[^`]|```([^j]|j[^s]|js[^o]|jso[^n])|<[^t])(?s:.*)/"""


def _other_than(words: Collection[str]) -> str:
    """Return a regular expression for all JSON strings without escapes, except some words."""
    rest: dict[str, set[str]] = {}
    for word in filter(None, words):
        rest.setdefault(word[0], set()).add(word[1:])
    begun = "".join(re.escape(letter) for letter in rest)
    parts = [rf'[^"\\{begun}][^"\\]*']
    parts += [re.escape(letter) + _other_than(ends) for letter, ends in rest.items()]
    either = f"({'|'.join(parts)})"
    return either if "" in words else f"{either}?"


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    arguments = _moved(_closed(parameters), "#/properties/arguments")
    return _object_of({"const": function["name"]}, arguments)


def _object_of(name: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": name, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        "x-guidance": _COMPACT,
    }


def _call_grammar(
    start: str, calls: Iterable[dict[str, Any]], single_tokens: Collection[str]
) -> str:
    """Compile rules that use a ``call`` and the marks OPEN and CLOSE around one."""
    rules = [f"call{i}: %json {json.dumps(call)}" for i, call in enumerate(calls)]
    either = " | ".join(f"call{i}" for i in range(len(rules)))

    def compiled(single: Collection[str]) -> str:
        marks = {m: m if m in single else f'"{m}"' for m in (OPEN, CLOSE)}
        whole = start.replace("OPEN", marks[OPEN]).replace("CLOSE", marks[CLOSE])
        text = "\n".join([whole, *rules, f"call: {either}"])
        return str(llguidance.LLMatcher.grammar_from_lark(text))

    _checked(compiled(()), "tools")  # the byte tokenizer that checks does not know added tokens
    return compiled(single_tokens)


def _checked(grammar: str, field: str) -> str:
    invalid, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, _BYTES)
    if invalid:
        raise ValueError(
            f"{field} cannot be enforced: {'; '.join(messages)}. Change the {field}, or have the "
            "teacher alone write the answer: method='function_calling'"
        )
    return grammar


def valid_prefix(text: str, grammar: str) -> tuple[str, bool]:
    """Return the longest beginning of a text that a grammar allows, and whether it is whole."""
    matcher = llguidance.LLMatcher(_BYTES, grammar, log_level=0)
    data = text.encode()
    count = matcher.try_consume_tokens(list(data))
    return data[:count].decode(errors="ignore"), bool(matcher.is_accepting())
