"""Tool calls in models' text: between tags, in code fences, or as plain JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""The marks of a tool call in the format of Hermes and Qwen."""

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_TAGGED = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", re.DOTALL)
_FENCED_JSON = re.compile(r"```(?:json|tool_call)?\s*([\[{].*?)\s*```", re.DOTALL)


def may_be_call(text: str, names: Collection[str]) -> bool:
    """Whether a growing answer may become a call of one of some tools, or is an unfinished one."""
    head = "".join(text.split())
    # Qwen's coder models double the braces, as an example in their template does.
    opened = [f"{fence}{brace}" for fence in ("", "```", "```json") for brace in ("{", "{{")]
    starts = (f'{start}"name":"{name}"' for start in opened for name in names)
    return any(start.startswith(head) or head.startswith(start) for start in starts)


def begins_call(text: str, names: Collection[str]) -> bool:
    """Whether a text begins a tool call and names its tool, or opens a fence or object of one."""
    if text.lstrip().startswith(OPEN):
        return True
    return '{"' in "".join(text.split()) and may_be_call(text, names)


def whole_call(text: str, names: Collection[str]) -> dict[str, Any] | None:
    """Return the tool call if a whole answer is one, with ``name`` and ``arguments``, or None.

    With text around the call it is not a call, and neither is one of an unknown tool.
    """
    fenced = _FENCED.fullmatch(text.strip())
    try:
        call = json_value(fenced[1] if fenced else text)
    except ValueError:
        return None
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        return None
    known = isinstance(call["name"], str) and call["name"] in names
    return call if known and isinstance(call["arguments"], dict) else None


def written_calls(text: str) -> list[dict[str, Any]] | None:
    """Return the tool calls in a whole answer, whether or not tools with their names exist.

    They may stand between tags, in code fences with or without words around them, or be the whole
    text: one object, several, or a list.

    Returns:
        Dicts with ``name`` and ``arguments``. An empty list for a text that calls nothing, None for
        one that begins an unreadable call.
    """
    if OPEN in text:
        groups = [_calls_of(body) for body in _TAGGED.findall(text)]
        return [call for group in groups if group for call in group] if all(groups) else None
    whole = text.strip()
    bodies = _FENCED_JSON.findall(text) or ([whole] if whole[:1] in ("{", "[") else [])
    calls: list[dict[str, Any]] = []
    for body in bodies:
        body_calls = _calls_of(body)
        if body_calls is None and '"name"' in body:
            return None
        calls += body_calls or []
    return calls


def json_value(text: str) -> Any:
    """Read a text as a JSON value, in doubled braces or with extra ones at its end.

    Raises a `ValueError` for any other.
    """
    body = _single_braces(text.strip())
    try:
        value, end = json.JSONDecoder().raw_decode(body)
    except RecursionError:
        raise ValueError("no JSON value: it is nested too deeply") from None
    if rest := body[end:].strip("} \t\r\n"):
        raise ValueError(f"no JSON value: {rest!r} follows it")
    return value


def _calls_of(body: str) -> list[dict[str, Any]] | None:
    """Read successive JSON values. None if one of them is not a call."""
    values: list[Any] = []
    rest, decoder = _single_braces(body.strip()), json.JSONDecoder()
    try:
        while rest:
            value, end = decoder.raw_decode(rest)
            values += value if isinstance(value, list) else [value]
            rest = rest[end:].lstrip(" \t\r\n,;}")  # a surplus brace changes nothing
        calls = [_call_in(value) for value in values]
    except (ValueError, RecursionError):
        return None
    return None if None in calls else calls  # type: ignore[return-value]


def _call_in(value: Any) -> dict[str, Any] | None:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        return None
    return {"name": function["name"], "arguments": arguments}


def _single_braces(text: str) -> str:
    """Remove the outer braces of an object in two pairs."""
    return text[1:-1] if text.startswith("{{") and text.endswith("}}") else text
