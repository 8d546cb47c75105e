"""Every private name of LangChain, and of transformers' pipelines, that this package uses.

Private names may change in any release. Each one has a contract test
(``tests/unit_tests/test_langchain_compat.py``) that fails when it does, and says what breaks. Names
without an underscore that LangChain exports from no public place are kept here too.
"""

from __future__ import annotations

from typing import Any, TypeVar

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase as RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable as DynamicRunnable
from langchain_core.runnables.retry import RunnableRetry as RunnableRetry
from langchain_core.tracers._streaming import _StreamingCallbackHandler

_Model = TypeVar("_Model", bound=BaseChatModel)

StreamingCallbackHandler = _StreamingCallbackHandler
"""The kind of the handlers behind ``astream_events``. LangGraph uses it too."""

OVERRIDDEN_BY_CHAIN = (
    "_generate_with_cache",
    "_agenerate_with_cache",
    "_chat_model_stream_v3",
    "_achat_model_stream_v3",
    "_get_llm_string",
    "_get_ls_params",
)
"""Methods of ``BaseChatModel`` that the chain overrides. Core calls them by these names."""

PROFILE_METHOD = "_resolve_model_profile"
"""Overridden by the chain and its student to report their profile. Core calls it at creation."""


def tracing_params(model: BaseChatModel) -> dict[str, Any]:
    """Return a model's trace parameters: ``ls_provider``, ``ls_model_name`` and so on."""
    return dict(model._get_ls_params())


def request_body(
    model: BaseChatModel, messages: list[BaseMessage], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return a langchain-openai model's request to its chat completions endpoint.

    Raises:
        AttributeError: If it is not a model of langchain-openai.
    """
    body: dict[str, Any] = model._get_request_payload(messages, **arguments)  # type: ignore[attr-defined]
    return body


def identifying_params(model: BaseChatModel) -> dict[str, Any]:
    """Return the parameters by which a model class distinguishes its instances."""
    return dict(model._identifying_params)


def cache_key(model: BaseChatModel) -> str:
    """Return the string under which LangChain's cache keeps a model's answers."""
    return model._get_llm_string()


def copy_model(model: _Model, update: dict[str, Any]) -> _Model:
    """Copy a model for one call, with other values of some fields.

    Serialising a model takes longer than the rest of the chain's work on a call, so the copy keeps
    the serialised form of the original. Only a model with a cache gets one of its own, because it
    is part of the cache's key.
    """
    model._serialized  # noqa: B018  a cached property, which copies take along
    copy = model.model_copy(update=update)
    if copy.cache or (copy.cache is None and get_llm_cache() is not None):
        copy.__dict__.pop("_serialized", None)
    return copy


def to_messages(model: BaseChatModel, prompt: LanguageModelInput) -> list[BaseMessage]:
    """Turn any input of a chat model into messages."""
    return model._convert_input(prompt).to_messages()


def is_from_init_chat_model(model: object) -> bool:
    """Whether this is a configurable model of ``init_chat_model``. ``langchain`` may be missing."""
    return type(model).__name__ == "_ConfigurableModel" and hasattr(model, "_model")


def configured_model(model: Any, config: RunnableConfig) -> Any:
    """Return the chat model that a config selects from a model of ``init_chat_model``.

    Raises:
        ValueError: If neither it nor the config names a model.
    """
    if not {**model._default_config, **model._model_params(config)}.get("model"):
        raise ValueError(
            "teacher names no model: give one to init_chat_model, or to the call as "
            f"config={{'configurable': {{'{model._config_prefix}model': 'provider:name'}}}}"
        )
    return model._model(config)


def pipeline_generation_settings(pipeline: object) -> dict[str, Any]:
    """Return the generation settings of a transformers pipeline, if it has some.

    transformers 5 has no public name for them.
    """
    return dict(getattr(pipeline, "_generate_kwargs", None) or {})


def blocks_threads(model: BaseChatModel) -> bool:
    """Whether awaiting a model blocks a thread of the event loop's executor.

    langchain-core runs a model that implements only blocking methods in such a thread.
    """
    kind = type(model)
    return kind._agenerate is BaseChatModel._agenerate and kind._astream is BaseChatModel._astream
