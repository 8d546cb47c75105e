"""Limits any LangChain chat model to a number of tokens, for one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableWithFallbacks

from langchain_gkt._langchain_compat import RunnableBindingBase, copy_model
from langchain_gkt.providers.limits import LIMIT_FIELDS
from langchain_gkt.teachers.attempts import AttemptGate, GatedModel
from langchain_gkt.teachers.tools import with_bound
from langchain_gkt.teachers.wrappers import is_guarded, models_of

_FORMATS = {"response_format", "format", "response_schema", "response_json_schema"}
"""Providers' arguments for the form of an answer."""


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The settings of a teacher for one call. None leaves the teacher's own."""

    limit: int | None = None  # completion tokens
    limit_param: str | None = None  # its name if it is none of LIMIT_FIELDS
    temperature: float | None = None
    stream: bool = False
    """If not, streaming is off even when a handler asks for it. Some streams report no usage."""
    tools: Sequence[dict[str, Any]] | None = None  # in OpenAI's form
    tool_arguments: dict[str, Any] = field(default_factory=dict)  # such as tool_choice
    asks_format: bool = False
    """Whether the call asks for an object of its own. The teacher's bound format is left out."""
    bound: dict[str, Any] = field(default_factory=dict)
    """Arguments bound around the model. The arguments of the call's tools override them."""
    gate: AttemptGate | None = None
    """Admits each attempt of retries and fallbacks, if something limits them."""


def with_settings(teacher: Runnable[Any, Any], settings: TeacherSettings) -> Runnable[Any, Any]:
    """Return a copy of the teacher, with the same wrapping and the settings of one call."""
    if isinstance(teacher, RunnableWithFallbacks):
        first, *rest = (with_settings(runnable, settings) for runnable in teacher.runnables)
        return teacher.model_copy(update={"runnable": first, "fallbacks": rest})
    if isinstance(teacher, RunnableBindingBase):
        # Bound arguments would override the fields of the model.
        names = {*LIMIT_FIELDS, settings.limit_param} if settings.limit is not None else set()
        names |= {"temperature"} if settings.temperature is not None else set()
        names |= _FORMATS if settings.asks_format else set()
        kwargs = {key: value for key, value in teacher.kwargs.items() if key not in names}
        if settings.tools:  # they would override the call's tools, too
            settings, kwargs = replace(settings, bound={**kwargs, **settings.bound}), {}
        bound = with_settings(teacher.bound, settings)
        return teacher.model_copy(update={"bound": bound, "kwargs": kwargs})
    if not isinstance(teacher, BaseChatModel):
        raise TypeError(f"teacher must be a chat model, not {type(teacher).__name__}")
    update, call_arguments = _changes(teacher, settings)
    copy = copy_model(teacher, update)
    model: Runnable[Any, Any] = copy
    if settings.tools:
        require_tools(teacher)
        bound = copy.bind_tools(settings.tools, **settings.tool_arguments, **call_arguments)
        model = with_bound(bound, settings.bound)
    elif call_arguments:
        model = RunnableBinding(bound=copy, kwargs=call_arguments)
    return GatedModel(bound=model, gate=settings.gate) if settings.gate else model


def _changes(
    teacher: BaseChatModel, settings: TeacherSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields to change on a model's copy, and further arguments of its call."""
    fields = type(teacher).model_fields
    update: dict[str, Any] = {} if settings.stream else {"disable_streaming": True}
    if teacher.cache is None:
        # Many models look alike to LangChain's cache. The chain's own entry is enough.
        update["cache"] = False
    if settings.temperature is not None and "temperature" in fields:
        update["temperature"] = settings.temperature
    if settings.limit is None:
        return update, {}
    call_arguments: dict[str, Any] = {}
    name = settings.limit_param or _limit_field(teacher)
    if _runs_in_pipeline(teacher) and not settings.limit_param:
        limits = {"max_new_tokens": settings.limit, "return_full_text": False}
        call_arguments["pipeline_kwargs"] = limits
    elif name in fields:
        update[name] = settings.limit
    elif name:
        call_arguments[name] = settings.limit
    if extra := getattr(teacher, "model_kwargs", None):
        update["model_kwargs"] = {k: v for k, v in extra.items() if k not in LIMIT_FIELDS}
    return update, call_arguments


def _runs_in_pipeline(model: BaseChatModel) -> bool:
    """Whether this is ChatHuggingFace on a local pipeline, which has no limit field."""
    return type(getattr(model, "llm", None)).__name__ == "HuggingFacePipeline"


def _limit_field(model: BaseChatModel) -> str | None:
    fields = type(model).model_fields
    return next((name for name in LIMIT_FIELDS if name in fields), None)


def has_async(teacher: Runnable[Any, Any]) -> bool:
    """Whether every model inside can be awaited. A local pipeline cannot."""
    return not any(map(_runs_in_pipeline, models_of(teacher)))


def streams_usage(teacher: Runnable[Any, Any]) -> bool:
    """Whether to stream a teacher, because every model says that its streams report usage.

    One with retries or fallbacks is not streamed, because LangChain repeats no stream.
    """
    if is_guarded(teacher):
        return False
    return all(getattr(model, "stream_usage", None) is True for model in models_of(teacher))


def can_limit(teacher: Runnable[Any, Any], limit_param: str | None) -> bool:
    """Whether every model inside knows a limit, which the caller may have named."""
    return bool(limit_param) or all(
        _limit_field(model) or _runs_in_pipeline(model) for model in models_of(teacher)
    )


def require_tools(teacher: Runnable[Any, Any]) -> None:
    """Raise a `NotImplementedError` if a model inside has no ``bind_tools``."""
    for model in models_of(teacher):
        if type(model).bind_tools is BaseChatModel.bind_tools:
            raise NotImplementedError(
                f"teacher {type(model).__name__} has no bind_tools, so it takes no tools; use "
                "a chat model that calls tools as the teacher"
            )
