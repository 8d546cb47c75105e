"""The messages of a request as LangChain's. An error names the message and its field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages

from langchain_gkt.serving.api.fields import FieldError, check_values, without_nulls

_ROLES = ("system", "developer", "user", "assistant", "tool")
_REFUSED = {
    "audio": "answers are text; leave it out",
    "function_call": "it is deprecated; use tool_calls",
}
_JSON_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "a list",
    str: "a text",
}


def as_langchain(messages: Sequence[Mapping[str, Any]]) -> list[BaseMessage]:
    """Convert a request's messages to LangChain's.

    Fields that say nothing to a model, such as ``annotations``, have no effect. Raises a
    `FieldError` if a message lacks a field or holds something else.
    """
    return convert_to_messages(
        [check_message(message, f"messages[{at}]") for at, message in enumerate(messages)]
    )


def check_message(raw: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Check one message, and return it in LangChain's form. Raises as `as_langchain`."""
    message = without_nulls(dict(raw))
    role = message.get("role")
    if role not in _ROLES:
        raise FieldError(f"{place}.role", f" must be one of {', '.join(_ROLES)}, not {role!r}")
    checked: dict[str, Any] = {"role": role, "content": _content(message, place)}
    if "name" in message:
        checked["name"] = _text(message["name"], f"{place}.name")
    if role == "assistant":
        for field, fix in _REFUSED.items():
            if field in message:
                raise FieldError(f"{place}.{field}", f": {fix}")
        if calls := message.get("tool_calls"):
            checked["tool_calls"] = _tool_calls(calls, f"{place}.tool_calls")
    if role == "tool":
        if "tool_call_id" not in message:
            raise FieldError(f"{place}.tool_call_id", " is missing; name the call it answers")
        checked["tool_call_id"] = _text(message["tool_call_id"], f"{place}.tool_call_id")
    return checked


def _content(message: Mapping[str, Any], place: str) -> Any:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        # A turn of tool calls may have no text, and a refusal has its own field.
        return _text(message.get("refusal", ""), f"{place}.refusal")
    if content is None:
        raise FieldError(f"{place}.content", " is missing; give a text")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise FieldError(
            f"{place}.content", f" must be a text or a list of parts, not {_kind(content)}"
        )
    return [_part(part, f"{place}.content[{at}]") for at, part in enumerate(content)]


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise FieldError(place, " must be an object with a type, such as text")
    if kind == "refusal":
        return {"type": "text", "text": _text(part.get("refusal", ""), f"{place}.refusal")}
    if kind == "text":
        _text(part.get("text"), f"{place}.text")
    return dict(part)


def _tool_calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise FieldError(place, f" must be a list, not {_kind(calls)}")
    checked = []
    for at, call in enumerate(calls):
        here = f"{place}[{at}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise FieldError(f"{here}.function", " is missing; only calls of functions are known")
        name = _text(function.get("name"), f"{here}.function.name")
        arguments = function.get("arguments", "{}")
        if isinstance(arguments, str):
            arguments = _parsed(arguments, f"{here}.function.arguments")
        if not isinstance(arguments, dict):
            raise FieldError(
                f"{here}.function.arguments",
                f" must be a JSON object as text, not {_kind(arguments)}",
            )
        call_id = _text(call.get("id"), f"{here}.id")
        checked.append({"type": "tool_call", "id": call_id, "name": name, "args": arguments})
    return checked


def _parsed(arguments: str, place: str) -> Any:
    try:
        # Some clients send an empty text for a call without arguments, others null.
        value = json.loads(arguments, strict=False) if arguments.strip() else None
        check_values(value)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise FieldError(
            place,
            f" is no JSON: {why}; send the arguments whole, or leave this call and its result out",
        ) from error
    return {} if value is None else value


def _text(value: Any, place: str) -> str:
    if value is None:
        raise FieldError(place, " is missing; give a text")
    if not isinstance(value, str):
        raise FieldError(place, f" must be a text, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return _JSON_KINDS.get(type(value), type(value).__name__)
