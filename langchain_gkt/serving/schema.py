"""The request of the chat completions API, checked field by field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from langchain_core.messages import BaseMessage, convert_to_messages
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from typing_extensions import Self

from langchain_gkt.errors import refuse_unknown

_HARMLESS = (
    "add_generation_prompt",  # what vLLM's clients send beside continue_final_message
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
"""Fields that do not change an answer; they are taken and have no effect."""

_REFUSED = {
    "audio": "answers are text; leave it out",
    "frequency_penalty": "it is not supported; leave it out",
    "function_call": "it is deprecated; use tool_choice",
    "functions": "they are deprecated; use tools",
    "logit_bias": "it is not supported; leave it out",
    "logprobs": "log probabilities are not reported, because two models write an answer; "
    "leave it out",
    "prediction": "it is not supported; leave it out",
    "presence_penalty": "it is not supported; leave it out",
    "reasoning_effort": "set it on the teacher of the server; leave it out",
    "top_logprobs": "log probabilities are not reported, because two models write an answer; "
    "leave it out",
    "web_search_options": "it is not supported; leave it out",
}
"""Fields that would change an answer and are not supported, each with what to do."""


def _refuse(values: dict[str, Any], owner: str, known: Iterable[str]) -> None:
    try:
        refuse_unknown(values, known, owner)
    except TypeError as error:
        raise ValueError(str(error)) from error


class StreamOptions(BaseModel):
    """What a stream holds besides the text."""

    include_usage: bool = False


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

    @property
    def conversation(self) -> list[BaseMessage]:
        """The messages, as LangChain's.

        Raises:
            ValueError: If one lacks a field or has an unknown role.
        """
        try:
            return convert_to_messages(self.messages)
        except KeyError as error:
            raise ValueError(f"messages hold one without its field {error}; add it") from error

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
        for name, mend in _REFUSED.items():
            if given.get(name):  # 0, false and {} ask for nothing
                raise ValueError(f"{name}: {mend}")
        given = {name: value for name, value in given.items() if name not in _REFUSED}
        _refuse(given, "the request", (*cls.model_fields, *_HARMLESS))
        return given
