"""The requests of both APIs, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Literal

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, Field, JsonValue, field_validator, model_validator
from typing_extensions import Self

from langchain_gkt.serving.api.fields import (
    FieldError,
    check_values,
    refuse_unknown_fields,
    without_nulls,
)
from langchain_gkt.serving.api.messages import as_langchain

HARMLESS = (
    "metadata",
    "moderation",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
"""Fields of both APIs without effect, because an answer does not depend on them."""


class OptionalFields(BaseModel):
    """An object whose fields may be null, which means their default."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


class StreamOptions(OptionalFields):
    """The contents of a stream besides the text."""

    include_usage: bool = False


class GKTOptions(OptionalFields):
    """A request's options for the pair: ``extra_body={"gkt": {...}}``.

    Attributes:
        guidance_tokens: Maximum completion tokens of the teacher.
        guidance: Fields of a `GuidancePolicy`. Names of files are refused.
        teacher_prompt: Ready-made teacher prompts, such as ``[{"prompt": "last_turns"}]``.
        budget_usd: Maximum US dollars that the teacher may cost in this request.
    """

    guidance_tokens: int | None = Field(default=None, ge=0, strict=True)
    guidance: dict[str, JsonValue] | None = None
    teacher_prompt: JsonValue = None
    budget_usd: Decimal | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            refuse_unknown_fields(values, cls.model_fields, "gkt.")
        return without_nulls(values)


class CompletionRequest(BaseModel):
    """The common part of both APIs' requests."""

    no_effect: ClassVar[tuple[str, ...]] = HARMLESS
    refused: ClassVar[Mapping[str, str]] = {}  # fields, and what to do
    names: ClassVar[Mapping[str, str]] = {}  # of the chain's fields in this API
    in_function: ClassVar[str] = ".function"  # where in a tool its name and parameters are

    model: str
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    gkt: GKTOptions = GKTOptions()

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        # The API lets every optional field be null, which means its default.
        if not isinstance(values, dict):
            return values
        check_values(values)
        fields = {name: value for name, value in values.items() if value is not None}
        for name, fix in cls.refused.items():
            if fields.pop(name, None):  # 0, false and {} request nothing
                raise FieldError(name, f": {fix}")
        refuse_unknown_fields(fields, (*cls.model_fields, *cls.no_effect))
        if fields.get("modalities", ["text"]) != ["text"]:
            raise FieldError("modalities", ': answers are text; leave it out, or send ["text"]')
        return {name: value for name, value in fields.items() if name not in cls.no_effect}

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        return tools and [cls._tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]

    @classmethod
    def _tool(cls, tool: dict[str, Any], place: str) -> dict[str, Any]:
        function = {name: value for name, value in function_of(tool).items() if value is not None}
        if tool.get("type", "function") != "function" or not isinstance(function.get("name"), str):
            inner = "'name': ..., 'parameters': {...}"
            inner = f"'function': {{{inner}}}" if cls.in_function else inner
            raise FieldError(
                place,
                f" must be an object such as {{'type': 'function', {inner}}}; other kinds of "
                "tools are not supported",
            )
        if not isinstance(function.get("parameters", {}), dict):
            where = f"{place}{cls.in_function}.parameters"
            raise FieldError(where, " must be a JSON schema, an object")
        return {"type": "function", "function": function}

    @property
    def forced_tool(self) -> str | None:
        """The tool that must be called. Empty for any of them, None if no call is required.

        Raises:
            FieldError: If ``tool_choice`` is none of the API's, or names no tool of the request.
        """
        choice = self.tool_choice
        if choice in (None, "auto", "none"):
            return None
        if not self.tools:
            raise FieldError("tool_choice", " needs tools; give them, or leave it out")
        if choice in ("required", "any"):
            return ""
        named = function_of(choice).get("name") if isinstance(choice, dict) else choice
        names = [tool["function"]["name"] for tool in self.tools]
        if named not in names:
            raise FieldError(
                "tool_choice",
                " must be none, auto, required, any, or name one of the request's tools "
                f"({', '.join(names)}), not {choice!r}",
            )
        return str(named)


_LOGPROBS = "log probabilities are not reported, because two models write an answer; leave it out"


class ChatCompletionRequest(CompletionRequest):
    """A chat completions request. Fields that would change the answer are used or refused."""

    # Wishes about the answer have no effect, because the server's models are set up already.
    # Clients of vLLM send add_generation_prompt beside continue_final_message.
    no_effect = (
        *HARMLESS,
        "add_generation_prompt",
        "modalities",
        "reasoning_effort",
        "verbosity",
    )
    refused = {
        "audio": "answers are text; leave it out",
        "frequency_penalty": "it is not supported; leave it out",
        "function_call": "it is deprecated; use tool_choice",
        "functions": "they are deprecated; use tools",
        "logit_bias": "it is not supported; leave it out",
        "logprobs": _LOGPROBS,
        "prediction": "it is not supported; leave it out",
        "presence_penalty": "it is not supported; leave it out",
        "top_logprobs": _LOGPROBS,
        "web_search_options": "it is not supported; leave it out",
    }

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: list[str] | None = None
    n: Literal[1] = 1
    stream_options: StreamOptions | None = None
    continue_final_message: bool = False
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream_options and not self.stream:
            raise FieldError("stream_options", " is for streams; set stream=true or leave it out")
        begun = self.messages[-1].get("role") == "assistant"
        if begun and not self.continue_final_message and not self.messages[-1].get("tool_calls"):
            raise FieldError(
                "messages",
                " end with an assistant message; set continue_final_message to continue it",
            )
        if self.continue_final_message and not begun:
            raise FieldError(
                "continue_final_message", " needs messages that end with an assistant's"
            )
        return self

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else None if value == [] else value

    @field_validator("response_format")
    @classmethod
    def _drop_nulls(cls, form: dict[str, Any] | None) -> dict[str, Any] | None:
        if form is None:
            return None
        inner = form.get("json_schema")
        if isinstance(inner, dict):  # in the schema itself null is a value
            form = {**form, "json_schema": {k: v for k, v in inner.items() if v is not None}}
        return {name: value for name, value in form.items() if value is not None}

    @property
    def conversation(self) -> list[BaseMessage]:
        """The messages, as LangChain's. Raises a `FieldError` as `as_langchain`."""
        return as_langchain(self.messages)

    @property
    def limit(self) -> int | None:
        """Maximum tokens of the answer. None for the models' own limits."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


def function_of(value: dict[str, Any]) -> dict[str, Any]:
    """Return the function of a tool, or of a choice of one. Empty if it has none."""
    function = value.get("function")
    return function if isinstance(function, dict) else {}
