"""The chain's ``with_structured_output``: the choice of a method, and early refusals."""

from __future__ import annotations

import importlib.util
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.runnables import Runnable

from langchain_gkt.chain.fields import ChainFields
from langchain_gkt.errors import refuse_unknown
from langchain_gkt.structured_output.schema import Method, bind_schema, binding, schema_in
from langchain_gkt.students.protocol import student_of

_METHODS = ("json_schema", "json_mode", "function_calling")


def with_schema(
    chain: ChainFields,
    schema: dict[str, Any] | type,
    *,
    include_raw: bool,
    method: Method | None,
    arguments: dict[str, Any],
) -> Runnable[LanguageModelInput, Any]:
    """Make a chain answer with objects of a schema. See its ``with_structured_output``."""
    student = chain.loaded_student
    if method not in (None, *_METHODS):
        raise ValueError(
            f"method must be 'json_schema', 'json_mode' or 'function_calling', not {method!r}"
        )
    enforces = student_of(student).enforces_schema
    if method is None:
        able = enforces and importlib.util.find_spec("llguidance")
        method = "json_schema" if able and _can_be_enforced(schema) else "function_calling"
    if method == "function_calling":
        # The arguments are fields, too. The method of langchain-core takes none for its calls.
        refuse_unknown(arguments, type(chain).model_fields, "with_structured_output")
        changed = chain.model_copy(update=arguments) if arguments else chain
        return BaseChatModel.with_structured_output(changed, schema, include_raw=include_raw)
    if not enforces:
        raise TypeError(
            f"method={method!r} needs a HuggingFaceStudent, which can be held to a schema; "
            f"with a {type(student).__name__} use method='function_calling'"
        )
    return bind_schema(chain, schema, method=method, include_raw=include_raw, **arguments)


def _can_be_enforced(schema: dict[str, Any] | type) -> bool:
    from langchain_gkt.structured_output.grammar import json_grammar  # needs an extra

    try:
        json_grammar(schema_in(binding(schema, "json_schema")["response_format"]))
    except ValueError:
        return False
    return True
