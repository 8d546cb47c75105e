"""Structured output: the instruction for both models, and how to parse the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from langchain_gkt.prompts.conversation import with_system_text
from langchain_gkt.texts.edges import WORD_EDGE

Method = Literal["json_schema", "json_mode", "function_calling"]

_JSON_EDGE = re.compile(rf".*(?:{WORD_EDGE}|(?<=[,:{{}}\[\]\"]))\s*", re.DOTALL)


def schema_in(response_format: Any) -> dict[str, Any]:
    """Return the JSON schema of an OpenAI-style ``response_format``, or raise a `ValueError`."""
    if isinstance(response_format, dict):
        if response_format.get("type") == "json_object":
            return {"type": "object"}
        inner = response_format.get("json_schema")
        if isinstance(inner, dict) and isinstance(inner.get("schema"), dict):
            return dict(inner["schema"])
    raise ValueError(
        "response_format must be {'type': 'json_schema', 'json_schema': {'schema': {...}}} or "
        f"{{'type': 'json_object'}}, not {response_format!r}; with_structured_output() makes one"
    )


def with_instruction(messages: Sequence[BaseMessage], schema: dict[str, Any]) -> list[BaseMessage]:
    """Ask for JSON of a schema in words, which every provider understands.

    The system messages that the conversation begins with are joined with the request.
    """
    text = "Answer with one JSON object and nothing else"
    if schema != {"type": "object"}:
        wanted = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        text += f", properties in the order of this JSON schema:\n{wanted}"
    return with_system_text(messages, text)


def in_order(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    """Put properties in their schema's order, and turn floats into integers where it says so.

    Parts without the schema's form stay as they are. References point into ``root``.
    """
    if not isinstance(schema, dict):
        return value
    if (ref := str(schema.get("$ref", ""))) == "#" or ref.startswith("#/"):
        return in_order(value, target_of(ref, root), root)
    if isinstance(value, list):
        return [in_order(item, schema.get("items"), root) for item in value]
    if isinstance(value, float) and schema.get("type") == "integer" and value.is_integer():
        return int(value)
    if not isinstance(value, dict):
        return value
    for option in schema.get("anyOf", ()) or schema.get("oneOf", ()):
        value = in_order(value, option, root)
    wanted = schema.get("properties", {})
    names = [*(n for n in wanted if n in value), *(n for n in value if n not in wanted)]
    return {name: in_order(value[name], wanted.get(name), root) for name in names}


def json_edge(text: str) -> str:
    """Cut a growing JSON text after its last mark or whole word, and the whitespace after it.

    The result for any longer text begins with it.
    """
    edge = _JSON_EDGE.match(text)
    return edge[0] if edge else ""


def _parsed(
    llm: Runnable[LanguageModelInput, Any], schema: Any, *, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """Append the parser of a schema to a model that writes JSON, as LangChain does."""
    parser: Any = JsonOutputParser()
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        parser = PydanticOutputParser(pydantic_object=schema)
    if not include_raw:
        both: Runnable[LanguageModelInput, Any] = llm | parser
        return both
    parsed: Runnable[Any, Any] = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed: Runnable[Any, Any] = RunnablePassthrough.assign(parsed=lambda _: None)
    raw: Runnable[Any, Any] = RunnableMap(raw=llm)
    return raw | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _recursive(schema: Any) -> dict[str, Any] | None:
    """Return a class's own JSON schema if it refers to itself. LangChain would lose part of it."""
    own = schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        own = schema.model_json_schema()
    if not isinstance(own, dict) or not refers_to_itself(own, own):
        return None
    target = own
    if str(own.get("$ref", "")).startswith("#/"):
        target = target_of(own["$ref"], own)
    return {"title": target.get("title", "answer"), **own}


def refers_to_itself(schema: Any, root: dict[str, Any], open_refs: tuple[str, ...] = ()) -> bool:
    """Whether a part of a schema refers to itself at any depth. Some references led to it."""
    if isinstance(schema, list):
        return any(refers_to_itself(item, root, open_refs) for item in schema)
    if not isinstance(schema, dict):
        return False
    ref = schema.get("$ref")
    if ref == "#" or ref in open_refs:
        return True
    if isinstance(ref, str) and ref.startswith("#/"):
        return refers_to_itself(target_of(ref, root), root, (*open_refs, ref))
    inner = (value for key, value in schema.items() if key not in ("$defs", "definitions"))
    return any(refers_to_itself(value, root, open_refs) for value in inner)


def target_of(ref: str, root: Mapping[str, Any]) -> Any:
    """Return the target of a reference such as ``#/$defs/Node`` or ``#``. Empty if missing."""
    target: Any = root
    for step in ref.split("/")[1:]:
        target = target.get(step, {}) if isinstance(target, dict) else {}
    return target


def binding(schema: Any, method: Method) -> dict[str, Any]:
    """Return the call arguments that ask a model of ours for a schema, as for `bind_schema`."""
    if isinstance(schema, dict) and not {"title", "name", "function"} & schema.keys():
        schema = {"title": "answer", **schema}
    wanted = _recursive(schema) or convert_to_json_schema(schema)
    name = wanted.get("title", "answer")
    json_schema = {"name": name, "schema": wanted}
    return {
        "response_format": {"type": "json_schema", "json_schema": json_schema},
        "ls_structured_output_format": {"kwargs": {"method": method}, "schema": wanted},
    }


def bind_schema(
    model: BaseChatModel, schema: Any, *, method: Method, include_raw: bool, **kwargs: Any
) -> Runnable[LanguageModelInput, Any]:
    """Make a model of ours answer with objects of a schema.

    Args:
        model: A model that takes a ``response_format`` and keeps to it.
        schema: A pydantic class, a TypedDict class or a JSON schema.
        method: The method, for traces.
        include_raw: Whether to return ``raw``, ``parsed`` and ``parsing_error``.
        **kwargs: Further arguments of each call.

    Raises:
        ImportError: If llguidance (extra ``structured``) is missing.
        ValueError: If the schema cannot be enforced. Raised now, not at the first call.
    """
    from langchain_gkt.structured_output.grammar import json_grammar

    bound = binding(schema, method)
    json_grammar(schema_in(bound["response_format"]))
    return _parsed(model.bind(**bound, **kwargs), schema, include_raw=include_raw)
