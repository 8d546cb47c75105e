"""Holds any LangChain chat model to a number of tokens, and reads back what it really did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableBinding, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

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


def models_of(teacher: object) -> Iterator[BaseChatModel]:
    """Yield the chat models inside bindings, retries and fallbacks.

    Args:
        teacher: A chat model, or one wrapped by ``bind``, ``with_config``, ``with_retry`` or
            ``with_fallbacks``.

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
            f"teacher must be a LangChain chat model, or one wrapped with bind, with_config, "
            f"with_retry or with_fallbacks, not {type(teacher).__name__}"
        )


def _runs_in_pipeline(model: BaseChatModel) -> bool:
    """Whether this is ChatHuggingFace on a local pipeline, which knows no limit field."""
    return type(getattr(model, "llm", None)).__name__ == "HuggingFacePipeline"


def has_async(teacher: Runnable[Any, Any]) -> bool:
    """Whether every model inside can be awaited (a local pipeline cannot)."""
    return not any(map(_runs_in_pipeline, models_of(teacher)))


def streams_usage(teacher: Runnable[Any, Any]) -> bool:
    """Whether every model inside says that it reports usage while streaming."""
    return all(getattr(model, "stream_usage", None) is True for model in models_of(teacher))


def can_limit(teacher: Runnable[Any, Any], limit_param: str | None) -> bool:
    """Whether the provider itself can be told to stop at a number of tokens."""
    return bool(limit_param) or all(
        _limit_field(model) or _runs_in_pipeline(model) for model in models_of(teacher)
    )


def _limit_field(model: BaseChatModel) -> str | None:
    fields = type(model).model_fields
    return next((name for name in LIMIT_FIELDS if name in fields), None)


def hold(
    teacher: Runnable[Any, Any],
    limit: int | None,
    *,
    limit_param: str | None = None,
    temperature: float | None = None,
    stream: bool = False,
) -> Runnable[Any, Any]:
    """Return a copy of the teacher that stops at a number of completion tokens.

    Args:
        teacher: A chat model, wrapped or not. It is left as it is.
        limit: Most completion tokens, or None to leave the teacher's own limit.
        limit_param: The limit's name where it is none of `LIMIT_FIELDS`: a field of the model
            or else an argument of its calls.
        temperature: Sampling temperature, where the model has such a field.
        stream: Whether the copy may stream. Otherwise streaming is off even where a handler
            asks for it, because some providers then report no usage.

    Returns:
        The teacher's copy, with the same wrapping.
    """
    if isinstance(teacher, RunnableWithFallbacks):
        held = [
            hold(runnable, limit, limit_param=limit_param, temperature=temperature, stream=stream)
            for runnable in teacher.runnables
        ]
        return teacher.model_copy(update={"runnable": held[0], "fallbacks": held[1:]})
    if isinstance(teacher, RunnableBindingBase):
        bound = hold(
            teacher.bound, limit, limit_param=limit_param, temperature=temperature, stream=stream
        )
        # A limit bound at call time would win over the model's field.
        names = {*LIMIT_FIELDS, limit_param} if limit is not None else set()
        kwargs = {key: value for key, value in teacher.kwargs.items() if key not in names}
        return teacher.model_copy(update={"bound": bound, "kwargs": kwargs})
    if not isinstance(teacher, BaseChatModel):
        raise TypeError(f"teacher must be a chat model, not {type(teacher).__name__}")
    fields = type(teacher).model_fields
    update: dict[str, Any] = {} if stream else {"disable_streaming": True}
    at_call: dict[str, Any] = {}
    if temperature is not None and "temperature" in fields:
        update["temperature"] = temperature
    if limit is not None:
        name = limit_param or _limit_field(teacher)
        if _runs_in_pipeline(teacher) and not limit_param:
            at_call["pipeline_kwargs"] = {"max_new_tokens": limit, "return_full_text": False}
        elif name in fields:
            update[name] = limit
        elif name:
            at_call[name] = limit
        if extra := getattr(teacher, "model_kwargs", None):
            update["model_kwargs"] = {k: v for k, v in extra.items() if k not in LIMIT_FIELDS}
    copy = teacher.model_copy(update=update)
    # The cached serialisation is the key of LangChain's LLM cache: the limit belongs in it.
    copy.__dict__.pop("_serialized", None)
    return RunnableBinding(bound=copy, kwargs=at_call) if at_call else copy


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
    found = {**message.response_metadata, **message.additional_kwargs}
    reason = next((str(found[key]) for key in _REASON_KEYS if found.get(key)), None)
    count = (
        usage["output_tokens"]
        if usage and usage.get("output_tokens")
        else max(1, count_tokens_approximately([AIMessage(written)], extra_tokens_per_message=0))
    )
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
    if getattr(message, "tool_calls", None):
        return "the teacher called a tool instead of writing text; guidance needs text"
    return (
        f"the teacher returned no text (finish reason: {reason}); check the teacher with "
        "mode='teacher', or set on_teacher_error='student' to go on without guidance"
    )
