"""The request of the chat completions API, checked field by field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from typing_extensions import Self

from langchain_gkt.errors import refuse_unknown
from langchain_gkt.serving.api.messages import as_langchain, without_nulls

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
"""Fields of both APIs that have no effect, because an answer does not depend on them."""

_HINTS = (
    "add_generation_prompt",  # what vLLM's clients send beside continue_final_message
    "modalities",
    "reasoning_effort",
    "verbosity",
)
"""Wishes about the answer; they have no effect, because the server's models are set up already."""

_LOGPROBS = "log probabilities are not reported, because two models write an answer; leave it out"
_REFUSED = {
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
"""Fields that would change an answer and are not supported, each with what to do."""

_MOST_LEVELS = 100
_CHOICES = ("none", "auto", "required", "any")


def refuse_deep(value: Any) -> None:
    """Refuse values inside of values inside of values, which would end the stack.

    Args:
        value: A JSON value.

    Raises:
        ValueError: If it has more than 100 levels.
    """
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"the body is nested too deeply; {_MOST_LEVELS} levels are read")


def _refuse(values: dict[str, Any], owner: str, known: Iterable[str]) -> None:
    try:
        refuse_unknown(values, known, owner)
    except TypeError as error:
        raise ValueError(str(error)) from error


class StreamOptions(BaseModel):
    """What a stream holds besides the text."""

    include_usage: bool = False

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        return without_nulls(values)


class GKTOptions(BaseModel):
    """What a request says of the pair: ``extra_body={"gkt": {...}}``.

    Attributes:
        guidance_tokens: Most completion tokens of the teacher.
        guidance: Fields of a `GuidancePolicy`. Names of files are not taken.
        teacher_prompt: Ready-made teacher prompts, such as ``[{"prompt": "last_turns"}]``.
        budget_usd: Most US dollars that the teacher may cost in this request.
    """

    guidance_tokens: int | None = Field(default=None, ge=0, strict=True)
    guidance: dict[str, JsonValue] | None = None
    teacher_prompt: dict[str, JsonValue] | list[dict[str, JsonValue]] | None = None
    budget_usd: str | float | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            _refuse(values, "gkt", cls.model_fields)
        return values


class CompletionFields(BaseModel):
    """The fields of a chat completions request that any server of this package understands."""

    model_config = ConfigDict(extra="ignore")

    messages: list[dict[str, Any]] = Field(min_length=1)
    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[str] | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    continue_final_message: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        # The API lets every optional field be null, which means its default.
        if not isinstance(values, dict):
            return values
        refuse_deep(values)
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream_options and not self.stream:
            raise ValueError("stream_options is for streams; set stream=true or leave it out")
        begun = self.messages[-1].get("role") == "assistant"
        if begun and not self.continue_final_message and not self.messages[-1].get("tool_calls"):
            raise ValueError(
                "messages end with an assistant message; set continue_final_message to continue it"
            )
        if self.continue_final_message and not begun:
            raise ValueError("continue_final_message needs messages that end with an assistant's")
        return self

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or None

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        return None if tools is None else [_tool(tool, at) for at, tool in enumerate(tools)]

    @property
    def conversation(self) -> list[BaseMessage]:
        """The messages, as LangChain's.

        Raises:
            ValueError: If one lacks a field or holds something else; it names the message.
        """
        return as_langchain(self.messages)

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer; None for the models' own limits."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionRequest(CompletionFields):
    """A chat completions request; fields that would change the answer are taken or refused."""

    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    gkt: GKTOptions = GKTOptions()

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value is not None}
        for name, fix in _REFUSED.items():
            if given.get(name):  # 0, false and {} ask for nothing
                raise ValueError(f"{name}: {fix}")
        if given.get("modalities", ["text"]) != ["text"]:
            raise ValueError('modalities: answers are text; leave it out, or send ["text"]')
        given = {name: value for name, value in given.items() if name not in _REFUSED}
        _refuse(given, "the request", (*cls.model_fields, *HARMLESS, *_HINTS))
        return given

    @field_validator("response_format")
    @classmethod
    def _form(cls, form: dict[str, Any] | None) -> dict[str, Any] | None:
        if form is None:
            return None
        inner = form.get("json_schema")
        if isinstance(inner, dict):  # in the schema itself null is a value
            form = {**form, "json_schema": {k: v for k, v in inner.items() if v is not None}}
        return {name: value for name, value in form.items() if value is not None}

    @property
    def forced_tool(self) -> str | None:
        """The tool that must be called; empty for any of them, None if none has to be.

        Raises:
            ValueError: If ``tool_choice`` is none of the API's, or names no tool of the request.
        """
        choice = self.tool_choice
        if choice in (None, "auto", "none"):
            return None
        if not self.tools:
            raise ValueError("tool_choice needs tools; give them, or leave it out")
        if choice in ("required", "any"):
            return ""
        named = choice if isinstance(choice, str) else _function_of(choice).get("name")
        names = [tool["function"]["name"] for tool in self.tools]
        if named not in names:
            raise ValueError(
                f"tool_choice must be {', '.join(_CHOICES)}, or name one of the request's tools "
                f"({', '.join(names)}), not {choice!r}"
            )
        return str(named)


_OF_RESPONSES = ("background", "conversation", "input", "previous_response_id", "prompt", "text")
FIELDS = {
    *ChatCompletionRequest.model_fields,
    *GKTOptions.model_fields,
    *_HINTS,
    *_OF_RESPONSES,
    *_REFUSED,
}
"""Fields of either API that a message may be about."""


def _tool(tool: dict[str, Any], at: int) -> dict[str, Any]:
    function = {name: value for name, value in _function_of(tool).items() if value is not None}
    if tool.get("type", "function") != "function" or not isinstance(function.get("name"), str):
        raise ValueError(
            f"tools[{at}] must be an object such as {{'type': 'function', 'function': "
            "{'name': ..., 'parameters': {...}}}; other kinds of tools are not supported"
        )
    if not isinstance(function.get("parameters", {}), dict):
        raise ValueError(f"tools[{at}].function.parameters must be a JSON schema, an object")
    return {"type": "function", "function": function}


def _function_of(value: dict[str, Any]) -> dict[str, Any]:
    function = value.get("function")
    return function if isinstance(function, dict) else {}
