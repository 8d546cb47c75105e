"""Looks through LangChain's wrappers of chat models: bindings, retries, fallbacks, configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.config import ensure_config, merge_configs

from langchain_gkt._langchain_compat import (
    DynamicRunnable,
    RunnableBindingBase,
    RunnableRetry,
    configured_model,
    copy_model,
    is_from_init_chat_model,
)


def is_configurable(teacher: object) -> bool:
    """Whether only a config turns something into a chat model.

    True for results of ``configurable_fields``, ``configurable_alternatives`` and a configurable
    ``init_chat_model``, also inside bindings, retries and fallbacks.
    """
    if isinstance(teacher, RunnableBindingBase):
        return is_configurable(teacher.bound)
    if isinstance(teacher, RunnableWithFallbacks):
        return any(map(is_configurable, teacher.runnables))
    return isinstance(teacher, DynamicRunnable) or is_from_init_chat_model(teacher)


def resolve(teacher: Any, config: RunnableConfig | None) -> Any:
    """Return the teacher that a config selects, without anything left to configure."""
    config = ensure_config(config)
    if isinstance(teacher, RunnableBindingBase):
        inner = merge_configs(config, teacher.config)
        return teacher.model_copy(update={"bound": resolve(teacher.bound, inner)})
    if isinstance(teacher, RunnableWithFallbacks):
        first, *rest = (resolve(runnable, config) for runnable in teacher.runnables)
        return teacher.model_copy(update={"runnable": first, "fallbacks": rest})
    if isinstance(teacher, DynamicRunnable):
        return resolve(teacher.prepare(config)[0], config)
    if is_from_init_chat_model(teacher):
        return resolve(configured_model(teacher, config), config)
    return teacher


def models_of(teacher: object) -> Iterator[BaseChatModel]:
    """Yield every chat model that a call may reach, the main one first.

    Args:
        teacher: A chat model, or one wrapped by ``bind``, ``with_config``, ``with_retry`` or
            ``with_fallbacks``, with nothing left to configure.

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


def is_guarded(teacher: object) -> bool:
    """Whether retries or fallbacks repeat a failed call."""
    if isinstance(teacher, RunnableRetry | RunnableWithFallbacks):
        return True
    return isinstance(teacher, RunnableBindingBase) and is_guarded(teacher.bound)


def with_fields(teacher: Any, fields: Mapping[str, Any]) -> Any:
    """Copy a chat model, wrapped or not, with other values of the fields that it has.

    A model without such a field stays unchanged, and so do configurable parts.
    """
    if isinstance(teacher, RunnableBindingBase):
        return teacher.model_copy(update={"bound": with_fields(teacher.bound, fields)})
    if isinstance(teacher, RunnableWithFallbacks):
        first, *rest = (with_fields(runnable, fields) for runnable in teacher.runnables)
        return teacher.model_copy(update={"runnable": first, "fallbacks": rest})
    if not isinstance(teacher, BaseChatModel):
        return teacher
    known = {k: v for k, v in fields.items() if k in type(teacher).model_fields}
    return copy_model(teacher, known) if known else teacher
