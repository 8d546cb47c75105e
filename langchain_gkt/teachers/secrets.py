"""Keeps a teacher's keys, headers and extra bodies out of errors, traces and files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, SecretBytes, SecretStr

HIDDEN = "[hidden]"
"""Replaces a secret."""

_PRIVATE = ("extra_headers", "extra_body", "extra_query", "default_headers", "default_query")
# A shorter value, such as "true", reveals nothing and would match ordinary words.
_LEAST = 6


def without_secrets(value: Any) -> Any:
    """Copy a model's parameters without keys. Headers and extra bodies become digests.

    So two values stay distinct.
    """
    if isinstance(value, Mapping):
        return {
            key: _digest(inner) if key in _PRIVATE and inner else without_secrets(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return HIDDEN if isinstance(value, SecretStr | SecretBytes) else value


def secrets_of(teacher: Any) -> set[str]:
    """Return the texts in a teacher that nobody else may see."""
    texts = {text for value in _private_values(teacher) for text in _texts(value)}
    texts |= {text.split(" ", 1)[1] for text in texts if text.startswith("Bearer ")}
    return {text for text in texts if len(text) >= _LEAST}


def hide_in_error(error: Exception, secrets: set[str]) -> Exception:
    """Replace secrets in the texts of a client's error and of its causes, in place.

    Some servers repeat the key that they got.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while secrets and cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        cause.args = tuple(_hidden(argument, secrets) for argument in cause.args)
        for name in ("message", "body"):
            if name in getattr(cause, "__dict__", ()):
                setattr(cause, name, _hidden(getattr(cause, name), secrets))
        cause = cause.__cause__ or cause.__context__
    return error


def hiding(config: RunnableConfig, teacher: Any) -> RunnableConfig:
    """Change a run's config so that secrets are hidden before any other handler gets the run."""
    secrets = secrets_of(teacher)
    if not secrets:
        return config
    handler, callbacks = _SecretHider(secrets), config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        callbacks.handlers.insert(0, handler)
        callbacks.inheritable_handlers.insert(0, handler)
    else:
        callbacks = [handler, *(callbacks or ())]
    return {**config, "callbacks": callbacks}


class _SecretHider(BaseCallbackHandler):
    """Changes the input of later handlers. The request itself uses other objects."""

    run_inline = True

    def __init__(self, secrets: set[str]) -> None:
        self._secrets = secrets

    def on_chat_model_start(self, serialized: dict[str, Any], messages: Any, **kwargs: Any) -> None:
        for params in ((serialized or {}).get("kwargs"), kwargs.get("invocation_params")):
            if isinstance(params, dict):
                params.update(without_secrets(params))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        if isinstance(error, Exception):
            hide_in_error(error, self._secrets)


def _private_values(teacher: Any) -> Iterator[Any]:
    for inner in (getattr(teacher, "bound", None), *(getattr(teacher, "runnables", None) or ())):
        if inner is not None:
            yield from _private_values(inner)
    if isinstance(teacher, BaseModel):
        for name in type(teacher).model_fields:
            yield from _private_in(name, getattr(teacher, name, None))


def _private_in(name: str, value: Any) -> Iterator[Any]:
    if name in _PRIVATE or isinstance(value, SecretStr | SecretBytes):
        yield value
    elif name in ("kwargs", "model_kwargs", "defaults") and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _private_in(str(key), inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _hidden(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, str):
        for secret in sorted(secrets, key=len, reverse=True):
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, Mapping):
        return {key: _hidden(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hidden(inner, secrets) for inner in value)
    return value


def _digest(value: Any) -> str:
    return f"sha256:{hashlib.sha256(repr(value).encode()).hexdigest()[:12]}"
