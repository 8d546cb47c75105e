"""Describes a teacher for cache keys, so that teachers with different answers differ."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from langchain_core.runnables import RunnableWithFallbacks
from pydantic import BaseModel, SecretBytes, SecretStr

from langchain_gkt._langchain_compat import RunnableBindingBase

_PROCESS = uuid.uuid4().hex

# Fields that do not change the answers of a model.
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


def identity(teacher: object) -> Any:
    """Describe a teacher for LangChain's cache, as plain data without keys.

    Two teachers that may answer differently never look the same.
    """
    if isinstance(teacher, RunnableBindingBase):
        return {"bound": identity(teacher.bound), "kwargs": _describe(teacher.kwargs)}
    if isinstance(teacher, RunnableWithFallbacks):
        return [identity(runnable) for runnable in teacher.runnables]
    return _describe(teacher)


def _describe(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bytes | complex):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return "secret"
    if isinstance(value, PurePath | Enum):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _describe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(_describe(inner)) for inner in value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        # Fields that a class keeps out of exports are clients and other live objects.
        names = [n for n, f in fields.items() if n not in _NO_IDENTITY and not f.exclude]
        return {"class": kind, **{name: _describe(getattr(value, name, None)) for name in names}}
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', kind)}"
    # Unknown. A cache miss is better than another teacher's entry.
    return f"{kind}:{_PROCESS}:{id(value)}"
