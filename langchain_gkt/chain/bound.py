"""A chain with bound arguments, which ``bind_tools`` and the like keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding

from langchain_gkt.chain.fields import CALL_ARGUMENTS
from langchain_gkt.chain.tool_policy import marked_tools
from langchain_gkt.structured_output.tools import in_openai_form


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
