"""Reads a teacher's text as the beginning of a JSON object of a schema."""

from __future__ import annotations

import json
from typing import Any

from langchain_gkt.structured_output.grammar import json_grammar, valid_prefix
from langchain_gkt.structured_output.schema import in_order, json_edge

_MAX_BRACES = 16


def json_prefix(written: str, schema: dict[str, Any]) -> tuple[str, bool]:
    """Return the part of a teacher's text that begins an answer of a schema.

    It is cut to a clean edge. Also returns whether it is the whole answer.
    """
    grammar, longest = json_grammar(schema), ""
    for at in _braces(written):  # skips code fences and greetings
        text, complete = valid_prefix(written[at:], grammar)
        if complete:
            return text, True
        if ":" in text:  # the schema knows its name, so this is the object
            return json_edge(text), False
        longest = max(longest, text, key=len)
    return json_edge(longest), False


def complete_json(written: str, schema: dict[str, Any], shown: str) -> str | None:
    """Return a whole answer in its schema's form, if the teacher wrote it in another form.

    None if there is none that begins with ``shown``, which the user has already seen.
    """
    for at in _braces(written):
        try:
            value, _ = json.JSONDecoder().raw_decode(written, at)
        except (ValueError, RecursionError):
            continue
        text = json.dumps(in_order(value, schema, schema), ensure_ascii=False)
        if valid_prefix(text, json_grammar(schema)) == (text, True) and text.startswith(shown):
            return text
    return None


def _braces(text: str) -> list[int]:
    """Return the positions at which an object may begin, the first few of them."""
    return [at for at, character in enumerate(text) if character == "{"][:_MAX_BRACES]
