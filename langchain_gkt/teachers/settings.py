"""Holds any LangChain chat model to a number of tokens, and reads back what it really did."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.retry import RunnableRetry
from pydantic import BaseModel, SecretBytes, SecretStr

from langchain_gkt.errors import TeacherError
from langchain_gkt.guidance import Guidance, GuidancePolicy

LIMIT_FIELDS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "num_predict",
    "max_new_tokens",
)
"""Names under which chat models know their completion limit, first match wins."""

_STOPPED_AT_LIMIT = {"length", "max_tokens", "max_output_tokens", "model_length", "max_length"}
_REASON_KEYS = ("finish_reason", "stop_reason", "done_reason")


_PROCESS = uuid.uuid4().hex

# What says nothing about the answers a model gives.
_NO_IDENTITY = {
    "cache",
    "callbacks",
    "custom_get_token_ids",
    "metadata",
    "name",
    "rate_limiter",
    "tags",
    "verbose",
}


def is_configurable(teacher: object) -> bool:
    """Whether something is a chat model only once a config is known.

    Args:
        teacher: Anything.

    Returns:
        True for what ``configurable_fields``, ``configurable_alternatives`` and a configurable
        ``init_chat_model`` give, also inside bindings, retries and fallbacks.
    """
    if isinstance(teacher, RunnableBindingBase):
        return is_configurable(teacher.bound)
    if isinstance(teacher, RunnableWithFallbacks):
        return any(map(is_configurable, teacher.runnables))
    return isinstance(teacher, DynamicRunnable) or _is_from_init_chat_model(teacher)


def _is_from_init_chat_model(teacher: object) -> bool:
    # A private class of a package we need not have.
    return type(teacher).__name__ == "_ConfigurableModel" and hasattr(teacher, "_model")


def resolved(teacher: Any, config: RunnableConfig | None) -> Any:
    """Choose the chat model that a config asks for.

    Args:
        teacher: A chat model, wrapped or not, configurable or not.
        config: The caller's config; its ``configurable`` decides.

    Returns:
        The teacher without anything left to configure.
    """
    config = ensure_config(config)
    if isinstance(teacher, RunnableBindingBase):
        inner = merge_configs(config, teacher.config)
        return teacher.model_copy(update={"bound": resolved(teacher.bound, inner)})
    if isinstance(teacher, RunnableWithFallbacks):
        first, *rest = (resolved(runnable, config) for runnable in teacher.runnables)
        return teacher.model_copy(update={"runnable": first, "fallbacks": rest})
    if isinstance(teacher, DynamicRunnable):
        return resolved(teacher.prepare(config)[0], config)
    if _is_from_init_chat_model(teacher):
        return resolved(teacher._model(config), config)
    return teacher


def models_of(teacher: object) -> Iterator[BaseChatModel]:
    """Yield the chat models inside bindings, retries and fallbacks.

    Args:
        teacher: A chat model, or one wrapped by ``bind``, ``with_config``, ``with_retry`` or
            ``with_fallbacks``, with nothing left to configure.

    Yields:
        Every chat model a call may reach, the main one first.

    Raises:
        TypeError: If something else is found.
    """
    if isinstance(teacher, BaseChatModel):
        yield teacher
    elif isinstance(teacher, RunnableBindingBase):
        yield from models_of(teacher.bound)
    elif isinstance(teacher, RunnableWithFallbacks):
        for runnable in teacher.runnables:
            yield from models_of(runnable)
    else:
        raise TypeError(
            "teacher must be a LangChain chat model, or one wrapped with bind, with_config, "
            "with_retry, with_fallbacks or configurable_fields, or made by init_chat_model; not "
            f"{type(teacher).__name__}"
        )


def identity(teacher: object) -> Any:
    """Describe a teacher so that two that may answer differently never look the same.

    Args:
        teacher: A chat model, wrapped or not.

    Returns:
        Plain data without keys; LangChain's cache tells teachers apart by it.
    """
    if isinstance(teacher, RunnableBindingBase):
        return {"bound": identity(teacher.bound), "kwargs": _described(teacher.kwargs)}
    if isinstance(teacher, RunnableWithFallbacks):
        return [identity(runnable) for runnable in teacher.runnables]
    return _described(teacher)


def _described(value: Any) -> Any:
    """Describe a value so that different ones never look the same; keys are left out."""
    if value is None or isinstance(value, str | int | float | bytes | complex):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return "secret"
    if isinstance(value, PurePath | Enum):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _described(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_described(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(_described(inner)) for inner in value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        # Fields that a class keeps out of exports are clients and the like.
        names = [n for n, f in fields.items() if n not in _NO_IDENTITY and not f.exclude]
        return {"class": kind, **{name: _described(getattr(value, name, None)) for name in names}}
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', kind)}"
    # Nothing is known of it: better miss the cache than take another's entry.
    return f"{kind}:{_PROCESS}:{id(value)}"


def _runs_in_pipeline(model: BaseChatModel) -> bool:
    """Whether this is ChatHuggingFace on a local pipeline, which knows no limit field."""
    return type(getattr(model, "llm", None)).__name__ == "HuggingFacePipeline"


def has_async(teacher: Runnable[Any, Any]) -> bool:
    """Whether every model inside can be awaited (a local pipeline cannot)."""
    return not any(map(_runs_in_pipeline, models_of(teacher)))


def streams_usage(teacher: Runnable[Any, Any]) -> bool:
    """Whether a stream is worth having: every model says that it reports usage while streaming.

    Nothing retries a stream, so a teacher with retries or fallbacks is asked for whole replies.
    """
    if _is_guarded(teacher):
        return False
    return all(getattr(model, "stream_usage", None) is True for model in models_of(teacher))


def _is_guarded(teacher: object) -> bool:
    if isinstance(teacher, RunnableRetry | RunnableWithFallbacks):
        return True
    return isinstance(teacher, RunnableBindingBase) and _is_guarded(teacher.bound)


def can_limit(teacher: Runnable[Any, Any], limit_param: str | None) -> bool:
    """Whether the provider itself can be told to stop at a number of tokens."""
    return bool(limit_param) or all(
        _limit_field(model) or _runs_in_pipeline(model) for model in models_of(teacher)
    )


def _limit_field(model: BaseChatModel) -> str | None:
    fields = type(model).model_fields
    return next((name for name in LIMIT_FIELDS if name in fields), None)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """What a teacher is held to in one call.

    Attributes:
        limit: Most completion tokens, or None to leave the teacher's own limit.
        limit_param: The limit's name where it is none of `LIMIT_FIELDS`: a field of the model
            or else an argument of its calls.
        temperature: Sampling temperature, where the model has such a field.
        stream: Whether the copy may stream. Otherwise streaming is off even where a handler
            asks for it, because some providers then report no usage.
        tools: Tools in OpenAI's form, or None.
        tool_arguments: Further arguments of ``bind_tools``, such as ``tool_choice``.
    """

    limit: int | None = None
    limit_param: str | None = None
    temperature: float | None = None
    stream: bool = False
    tools: Sequence[dict[str, Any]] | None = None
    tool_arguments: dict[str, Any] = field(default_factory=dict)


def hold(teacher: Runnable[Any, Any], to: Hold) -> Runnable[Any, Any]:
    """Return a copy of the teacher that stops at a number of completion tokens.

    Args:
        teacher: A chat model, wrapped or not. It is left as it is.
        to: The limit and the rest of one call's settings.

    Returns:
        The teacher's copy, with the same wrapping.

    Raises:
        NotImplementedError: If there are tools and the teacher takes none.
    """
    if isinstance(teacher, RunnableWithFallbacks):
        first, *rest = (hold(runnable, to) for runnable in teacher.runnables)
        return teacher.model_copy(update={"runnable": first, "fallbacks": rest})
    if isinstance(teacher, RunnableBindingBase):
        # What is bound at call time would win over the model's fields.
        names = {*LIMIT_FIELDS, to.limit_param} if to.limit is not None else set()
        names |= {"temperature"} if to.temperature is not None else set()
        kwargs = {key: value for key, value in teacher.kwargs.items() if key not in names}
        return teacher.model_copy(update={"bound": hold(teacher.bound, to), "kwargs": kwargs})
    if not isinstance(teacher, BaseChatModel):
        raise TypeError(f"teacher must be a chat model, not {type(teacher).__name__}")
    fields = type(teacher).model_fields
    update: dict[str, Any] = {} if to.stream else {"disable_streaming": True}
    at_call: dict[str, Any] = {}
    if teacher.cache is None:
        # Many models look alike to LangChain's cache; the chain's own entry is enough.
        update["cache"] = False
    if to.temperature is not None and "temperature" in fields:
        update["temperature"] = to.temperature
    if to.limit is not None:
        name = to.limit_param or _limit_field(teacher)
        if _runs_in_pipeline(teacher) and not to.limit_param:
            at_call["pipeline_kwargs"] = {"max_new_tokens": to.limit, "return_full_text": False}
        elif name in fields:
            update[name] = to.limit
        elif name:
            at_call[name] = to.limit
        if extra := getattr(teacher, "model_kwargs", None):
            update["model_kwargs"] = {k: v for k, v in extra.items() if k not in LIMIT_FIELDS}
    copy = teacher.model_copy(update=update)
    if copy.cache is not False:
        # The cached serialisation is the key of a teacher's own cache: the limit belongs in it.
        copy.__dict__.pop("_serialized", None)
    if to.tools:
        refuse_toolless(teacher)
        return copy.bind_tools(to.tools, **to.tool_arguments, **at_call)
    return RunnableBinding(bound=copy, kwargs=at_call) if at_call else copy


def refuse_toolless(teacher: Runnable[Any, Any]) -> None:
    """Refuse a teacher that takes no tools.

    Args:
        teacher: A chat model, wrapped or not.

    Raises:
        NotImplementedError: If a model inside does not implement ``bind_tools``.
    """
    for model in models_of(teacher):
        if type(model).bind_tools is BaseChatModel.bind_tools:
            raise NotImplementedError(
                f"teacher {type(model).__name__} has no bind_tools, so it takes no tools; use "
                "a chat model that calls tools as the teacher"
            )


def finish_reason(reply: BaseMessage) -> str | None:
    """Return the provider's own word for why a reply ended, or None."""
    found = {**reply.response_metadata, **reply.additional_kwargs}
    return next((str(found[key]) for key in _REASON_KEYS if found.get(key)), None)


def completion_tokens(reply: BaseMessage) -> int:
    """Return the completion tokens of a reply: as reported, else estimated, at least 1."""
    usage = reply.usage_metadata if isinstance(reply, AIMessage) else None
    if usage and usage.get("output_tokens"):
        return usage["output_tokens"]
    return max(1, count_tokens_approximately([reply], extra_tokens_per_message=0))


def broken_off_in_tool_call(reply: AIMessage, limit: int | None, tools: bool) -> bool:
    """Say whether a reply's tool call is cut, or may be, by its limit.

    Args:
        reply: The teacher's reply.
        limit: The limit it was held to; None for none.
        tools: Whether it had tools.

    Returns:
        True where the limit ended a reply that holds a tool call, or that had tools and holds
        no text: some providers drop the call they could not finish.
    """
    reason = finish_reason(reply)
    at_limit = limit is not None and (
        reason.lower() in _STOPPED_AT_LIMIT if reason else completion_tokens(reply) >= limit
    )
    calls = reply.tool_calls or reply.invalid_tool_calls
    return at_limit and bool(calls or (tools and not str(reply.text).strip()))


def read(
    message: BaseMessage, limit: int | None, policy: GuidancePolicy, stop: list[str] | None
) -> Guidance:
    """Read a teacher's reply as guidance.

    Args:
        message: The teacher's reply to a call held to ``limit``.
        limit: The limit it was held to, in the teacher's tokens; None for a whole answer.
        policy: Where to cut.
        stop: Stop strings of the call; text from one on is dropped.

    Returns:
        The guidance.

    Raises:
        TeacherError: If the reply holds no text.
    """
    written = str(message.text)
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    reason, count = finish_reason(message), completion_tokens(message)
    if not written.strip():
        raise TeacherError(_explain_silence(message, usage, reason, limit))
    complete = limit is None or (
        reason.lower() not in _STOPPED_AT_LIMIT if reason else bool(usage) and count < limit
    )
    text = written
    # An estimated count is too rough to cut by where the provider says how it stopped.
    if limit is not None and count > limit and (usage or reason is None):
        text, complete = text[: len(text) * limit // count], False
    if ends := [text.find(end) for end in stop or () if end and end in text]:
        text, complete = text[: min(ends)], True
    return Guidance(
        text=text if complete else policy.trim(text),
        token_count=count,
        finish_reason=reason,
        usage=usage,
        complete=complete,
        written=written,
    )


def _explain_silence(
    message: BaseMessage, usage: Any, reason: str | None, limit: int | None
) -> str:
    hidden = ((usage or {}).get("output_token_details") or {}).get("reasoning", 0)
    if hidden:
        return (
            f"the teacher spent {hidden} hidden reasoning tokens of a limit of {limit} and wrote "
            "no text; raise guidance_tokens, or turn the teacher's reasoning down "
            "(reasoning_effort='minimal' for OpenAI models)"
        )
    return (
        f"the teacher returned no text (finish reason: {reason}); check the teacher with "
        "mode='teacher', or set on_teacher_error='student' to go on without guidance"
    )
