"""The chain as a tool that an agent calls."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field, create_model

_DESCRIPTION = "Answers a question in text. The question must say all that is needed to answer it."


class Question(BaseModel):
    """The arguments of a tool without a schema of its own."""

    question: str = Field(description="The whole question, with everything needed to answer it")


def answering_tool(
    model: BaseChatModel,
    args_schema: type[BaseModel] | None,
    *,
    name: str | None,
    description: str | None,
    arg_types: dict[str, type] | None,
) -> BaseTool:
    """Make a tool of a chat model. See `GuidedKnowledgeTransferChain.as_tool`."""
    if args_schema and arg_types:
        raise ValueError("give args_schema or arg_types, not both")
    if arg_types:
        fields: dict[str, Any] = {key: (kind, ...) for key, kind in arg_types.items()}
        args_schema = create_model("Arguments", **fields)

    # The config is the caller's. The callbacks are those of the tool's own run.
    def answer(config: RunnableConfig, callbacks: Callbacks = None, **arguments: Any) -> str:
        inner: RunnableConfig = {**config, "callbacks": callbacks}
        return str(model.invoke(_prompt(arguments), inner).text)

    async def aanswer(config: RunnableConfig, callbacks: Callbacks = None, **arguments: Any) -> str:
        inner: RunnableConfig = {**config, "callbacks": callbacks}
        return str((await model.ainvoke(_prompt(arguments), inner)).text)

    return StructuredTool.from_function(
        answer,
        aanswer,
        name=name or "answer",
        description=description or _DESCRIPTION,
        args_schema=args_schema or Question,
    )


def _prompt(arguments: dict[str, Any]) -> str:
    if len(arguments) == 1:
        return str(next(iter(arguments.values())))
    return "\n".join(f"{name}: {value}" for name, value in arguments.items())
