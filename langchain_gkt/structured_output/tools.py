"""Tools in any form LangChain knows -> OpenAI's form, with all references in their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.tools import BaseTool, Tool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel
from typing_extensions import is_typeddict

from langchain_gkt.structured_output.schema import refers_to_itself, target_of

AnyTool: TypeAlias = dict[str, Any] | type | Callable[..., Any] | BaseTool
ToolChoice: TypeAlias = str | bool | dict[str, Any]


def in_openai_form(tool: Any) -> dict[str, Any]:
    """Convert a tool of any form as LangChain does, but keep parameters that refer to themselves.

    LangChain replaces references by their targets, and an inner one by nothing. Such a parameter
    could then be anything. Raises a `ValueError` for a tool of no known form.
    """
    try:
        converted = convert_to_openai_tool(tool)
    except RecursionError as error:
        raise ValueError(
            f"tools: the parameters of {getattr(tool, '__name__', tool)!r} refer to themselves in "
            "a form that cannot be read; write them as a pydantic class or a JSON schema"
        ) from error
    own = _own_parameters(tool)
    if own is None or not ("$ref" in own or refers_to_itself(own, own)):
        return converted
    if str(own.get("$ref", "")).startswith("#/"):  # providers want an object, not a reference
        own = {**target_of(own["$ref"], own), **own}
        del own["$ref"]
    parameters = {key: own[key] for key in own if key not in ("title", "description")}
    return {**converted, "function": {**converted["function"], "parameters": parameters}}


def _own_parameters(tool: Any) -> dict[str, Any] | None:
    """Return the JSON schema of a tool's parameters. None if LangChain loses nothing of it."""
    schema = tool
    if isinstance(tool, Mapping):  # only a schema whose root is a reference loses anything
        return dict(tool) if "title" in tool and "$ref" in tool else None
    if isinstance(tool, BaseTool):
        if isinstance(tool, Tool) and not tool.args_schema:
            return None
        schema = tool.tool_call_schema
    elif callable(tool) and not isinstance(tool, type):
        schema = create_schema_from_function(
            tool.__name__, tool, filter_args=(), parse_docstring=True, include_injected=False
        )
    if isinstance(schema, Mapping):
        return dict(schema)
    if isinstance(schema, type) and issubclass(schema, BaseModel) and not is_typeddict(schema):
        return schema.model_json_schema()
    return None


def required_tool(choice: Any) -> str | None:
    """Return the name of the tool that a ``tool_choice``, in any provider's form, requires.

    It is ``any`` for any of them, None if no call is required.
    """
    if isinstance(choice, Mapping):
        named = choice.get("function", choice)  # OpenAI's form, or Anthropic's
        choice = named.get("name") or choice.get("type", "auto")
    if choice in (None, False, "auto", "none"):
        return None
    return "any" if choice in (True, "required") else str(choice)
