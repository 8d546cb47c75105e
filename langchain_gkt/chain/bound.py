"""Chains with bound arguments: tools, and schemas of their answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding

from langchain_gkt.chain.fields import CALL_ARGUMENTS, ChainFields, check_schema
from langchain_gkt.chain.tool_policy import marked_tools
from langchain_gkt.errors import any_of, refuse_unknown
from langchain_gkt.structured_output.schema import Method, bind_schema, binding, schema_in
from langchain_gkt.structured_output.tools import in_openai_form
from langchain_gkt.students.protocol import student_of


class BoundChain(RunnableBinding[LanguageModelInput, AIMessage]):
    """The result of `GuidedKnowledgeTransferChain.bind`.

    LangChain passes ``bind_tools`` of a binding to the model inside, which does not know the bound
    arguments. Agents bind their tools that way, so ``chain.bind(mode="teacher")`` would lose its
    mode.
    """

    @classmethod
    def lc_id(cls) -> list[str]:
        """Name it in traces as LangChain does."""
        return [*RunnableBinding.get_lc_namespace(), "RunnableBinding"]

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools as well. See `GuidedKnowledgeTransferChain.bind_tools`."""
        chain: Any = self.bound
        return self.bind(**chain.bind_tools(tools, **kwargs).kwargs)

    def with_structured_output(
        self, schema: Any, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Ask for objects. See `GuidedKnowledgeTransferChain.with_structured_output`."""
        chain: Any = self.bound
        asking: Runnable[LanguageModelInput, Any]
        asking = chain.with_structured_output(schema, **{**self.kwargs, **kwargs})
        return asking.with_config(self.config) if self.config else asking


def tool_binding(
    tools: Sequence[Any], tool_choice: Any, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Turn the arguments of ``bind_tools`` into arguments of each call."""
    rest = dict(arguments)
    # LangChain's note for traces is the chain's, not the teacher's.
    notes = {key: rest.pop(key) for key in ("ls_structured_output_format",) if key in rest}
    bound = {key: rest.pop(key) for key in CALL_ARGUMENTS if key in rest}
    bound["tools"] = [in_openai_form(tool) for tool in tools]
    if marked := marked_tools(tools):
        bound["marked_tools"] = marked
    if tool_choice is not None:
        bound["tool_choice"] = tool_choice
    if notes:
        bound["hide_child_runs"] = True
    if rest:
        bound["tool_arguments"] = rest
    return {**bound, **notes}


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
    if method not in (None, *get_args(Method)):
        raise ValueError(f"method must be {any_of(get_args(Method))}, not {method!r}")
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
    try:
        check_schema(schema_in(binding(schema, "json_schema")["response_format"]))
    except ValueError:
        return False
    return True
