"""Tools of a teacher: its bound ones, and calls that its limit has truncated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.runnables import Runnable, RunnableBinding, RunnableWithFallbacks

from langchain_gkt._langchain_compat import RunnableBindingBase
from langchain_gkt.structured_output.schema import target_of
from langchain_gkt.structured_output.tools import in_openai_form
from langchain_gkt.teachers.replies import STOPPED_AT_LIMIT, completion_tokens, finish_reason
from langchain_gkt.texts.tool_text import begins_call

_SEVERAL = ("function_declarations", "functionDeclarations")
"""Key of Google's form for several tools in one."""
_MAX_DEPTH = 50
"""Maximum depth of references in a tool's schema."""


def bound_arguments(teacher: object) -> dict[str, Any]:
    """Return the bound arguments of a teacher. Outer ones override inner ones, as in a call.

    With fallbacks, the first model counts.
    """
    if isinstance(teacher, RunnableWithFallbacks):
        return bound_arguments(teacher.runnable)
    if isinstance(teacher, RunnableBindingBase):
        return {**bound_arguments(teacher.bound), **teacher.kwargs}
    return {}


def offered_tools(
    bound: Mapping[str, Any], tools: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the functions that a teacher may call, bound or of the call, in OpenAI's form.

    Bound tools of unknown form are left out, and so are a provider's own, such as a web search.
    Tools of the call override bound ones with the same name.
    """
    known: list[dict[str, Any]] = []
    for tool in bound.get("tools") or ():
        try:
            converted = in_openai_form(tool)
        except (ValueError, TypeError, KeyError):
            continue
        known += [converted] if "function" in converted else []
    return _union(known, tools)


def with_bound(model: Runnable[Any, Any], bound: Mapping[str, Any]) -> Runnable[Any, Any]:
    """Bind the arguments around a teacher to the result of ``bind_tools``, too.

    Its own ones take precedence. Its tools are added to theirs.
    """
    if not bound:
        return model
    own = dict(model.kwargs) if isinstance(model, RunnableBindingBase) else {}
    both = {**bound, **{k: v for k, v in own.items() if v is not None or k not in bound}}
    if "tools" in bound and "tools" in own:
        both["tools"] = _union(bound["tools"], own["tools"])
    elif not own:
        both.pop("tools", None)  # its own are hidden somewhere inside
    if isinstance(model, RunnableBindingBase):
        return model.model_copy(update={"kwargs": both})
    return RunnableBinding(bound=model, kwargs=both)


def _union(earlier: Sequence[Any], tools: Sequence[Any]) -> list[Any]:
    """Join two lists of tools in a provider's form. The second overrides equal names."""
    names = {name for tool in tools for name in _names(tool)}
    kept: list[Any] = []
    for tool in earlier:
        several = next((key for key in _SEVERAL if isinstance(tool, Mapping) and key in tool), None)
        if several is None:
            kept += [] if names & _names(tool) else [tool]
        elif left := [function for function in tool[several] if not names & _names(function)]:
            kept.append({**tool, several: left})
    return [*kept, *tools]


def _names(tool: Any) -> set[str]:
    """Return the names of a tool in any provider's form. One without a name has its type."""
    if not isinstance(tool, Mapping):
        name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        return {str(name)} if name else set()
    forms = [tool, *tool.values(), *(inner for key in _SEVERAL for inner in tool.get(key) or ())]
    names = {str(form["name"]) for form in forms if isinstance(form, Mapping) and "name" in form}
    return names or ({str(tool["type"])} if "type" in tool else set())


def is_cut_tool_call(
    reply: AIMessage, limit: int | None, *, tools: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether a reply's limit truncated its tool call, or may have done so.

    It may have, if the reply had tools and holds no text, because some providers drop a call that
    they could not finish, or a small teacher's text begins a call as plain JSON. Some servers
    report ``tool_calls`` for a truncated call, so its arguments count, too.
    """
    if limit is None:
        return False
    names, text = tool_names(tools), str(reply.text).strip()
    calls = bool(reply.tool_calls or reply.invalid_tool_calls)
    may_hold = calls or bool(names and (not text or begins_call(text, names)))
    reason, at_limit = finish_reason(reply), completion_tokens(reply) >= limit
    if reason is None:
        return at_limit and may_hold
    if reason.lower() in STOPPED_AT_LIMIT:
        return may_hold
    uncounted = not reply.usage_metadata  # an estimate does not outweigh broken arguments
    return (at_limit or uncounted) and bool(_parted(reply, tools)[1])


def without_cut_calls(reply: AIMessage, tools: Sequence[Mapping[str, Any]]) -> AIMessage:
    """Move a reply's truncated calls among ``invalid_tool_calls``, so that no agent runs them.

    If there are any, its finish reason becomes ``length``. See `is_cut_tool_call`.
    """
    whole, broken = _parted(reply, tools)
    if not broken:
        return reply
    return AIMessage(
        content=reply.content,
        additional_kwargs=reply.additional_kwargs,
        tool_calls=whole,
        invalid_tool_calls=broken,
        usage_metadata=reply.usage_metadata,
        response_metadata={**reply.response_metadata, "finish_reason": "length"},
    )


def _parted(
    reply: AIMessage, tools: Sequence[Mapping[str, Any]]
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Split the calls of a reply into whole ones and broken ones.

    Arguments are broken if they do not parse, lack required properties (also of an object inside),
    or are empty though the tool has some.
    """
    schemas = {str(f.get("name")): f.get("parameters") or {} for f in map(_function, tools)}
    whole: list[ToolCall] = []
    broken = list(reply.invalid_tool_calls)
    calls = [(c["name"], json.dumps(c["args"], default=str), c["id"]) for c in reply.tool_calls]
    if isinstance(reply, AIMessageChunk) and reply.tool_call_chunks:
        # langchain-core has completed truncated calls. Only the text of the arguments shows it.
        broken = []
        calls = [(c["name"] or "", c["args"] or "", c["id"]) for c in reply.tool_call_chunks]
    for name, text, call_id in calls:
        arguments = _read(text)
        if arguments is None or _lacks(arguments, schemas.get(name)):
            error = "its arguments were cut by the limit"
            broken.append(invalid_tool_call(name=name, args=text, id=call_id, error=error))
        else:
            whole.append(tool_call(name=name, args=arguments, id=call_id))
    return whole, broken


def _read(text: str) -> dict[str, Any] | None:
    try:
        arguments = json.loads(text or "{}", strict=False)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def _lacks(arguments: Mapping[str, Any], schema: Mapping[str, Any] | None) -> bool:
    if schema is None:  # a truncated name names no tool
        return not arguments
    if not arguments and schema.get("properties"):
        return True
    return _lacks_inside(arguments, schema, schema)


def _lacks_inside(value: Any, schema: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether an object, or one inside, lacks properties that its schema requires."""
    if not isinstance(schema, Mapping) or not isinstance(value, Mapping | list):
        return False
    if depth > _MAX_DEPTH:  # a schema may refer to itself
        return False
    lacks = partial(_lacks_inside, root=root, depth=depth + 1)
    if isinstance(reference := schema.get("$ref"), str):
        return lacks(value, target_of(reference, root))
    if forms := schema.get("anyOf") or schema.get("oneOf"):
        fitting = [form for form in forms if form.get("type") in ("object", "array", None)]
        return bool(fitting) and all(lacks(value, form) for form in fitting)
    if isinstance(value, list):
        return any(lacks(item, schema.get("items")) for item in value)
    inner = schema.get("properties") or {}
    missing = any(name not in value for name in schema.get("required") or ())
    return missing or any(lacks(item, inner.get(name)) for name, item in value.items())


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = tool.get("function", tool)  # a provider's own tools (web search) have no function
    return inner if isinstance(inner, Mapping) else {}


def tool_names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of tools in OpenAI's form."""
    return [str(_function(tool).get("name")) for tool in tools]
