"""Tool calls that a model writes as plain JSON, bare or in a code fence."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""The marks of a tool call in the format of Hermes and Qwen."""

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


def may_be_call(text: str, names: Collection[str]) -> bool:
    """Whether a growing answer may become a tool call, or is a call that is not finished.

    Args:
        text: The answer so far, from its beginning.
        names: Names of the tools that may be called.
    """
    head = "".join(text.split())
    starts = (f'{fence}{{"name":"{name}"' for fence in ("", "```", "```json") for name in names)
    return any(start.startswith(head) or head.startswith(start) for start in starts)


def begins_call(text: str, names: Collection[str]) -> bool:
    """Whether a text begins a tool call and names its tool, or opens a fence or object of one.

    Args:
        text: The beginning of an answer.
        names: Names of the tools that may be called.
    """
    if text.lstrip().startswith(OPEN):
        return True
    return '{"' in "".join(text.split()) and may_be_call(text, names)


def whole_call(text: str, names: Collection[str]) -> dict[str, Any] | None:
    """Return the tool call that a whole answer is, or None.

    Args:
        text: The whole answer; text around the call makes it no call.
        names: Names of the tools that may be called.

    Returns:
        A dict with ``name`` and ``arguments``.
    """
    fenced = _FENCED.fullmatch(text.strip())
    try:
        call = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return None
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        return None
    known = isinstance(call["name"], str) and call["name"] in names
    return call if known and isinstance(call["arguments"], dict) else None
