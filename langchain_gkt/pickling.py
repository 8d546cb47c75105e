"""Pickles and copies chat models. Loading makes clients and locks anew."""

from __future__ import annotations

import io
import pickle
import threading
from abc import ABC
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, SecretStr

_MODELS = ("teacher", "student")
_LOCKS = {type(make()): make for make in (threading.Lock, threading.RLock)}
_UNPICKLABLE = (TypeError, AttributeError, pickle.PicklingError)


class PortableChatModel(BaseChatModel, ABC):
    """A chat model that can be pickled and copied with all that LangChain lets its users set.

    Rate limiters, caches and many handlers hold locks. A loaded model has its own. Copies by
    ``deepcopy`` share the same objects.
    """

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle locks as free ones."""
        state = super().__getstate__()
        fields: dict[str, Any] = state["__dict__"]
        own = {name: value for name, value in fields.items() if name in BaseChatModel.model_fields}
        return {**state, "__dict__": {**fields, **_portable(own)}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy the settings. Handlers, cache and rate limiter are shared."""
        memo = {} if memo is None else memo
        shared: list[Any] = [self.rate_limiter, self.cache]
        callbacks = self.callbacks or []
        if isinstance(callbacks, BaseCallbackManager):
            shared += [*callbacks.handlers, *callbacks.inheritable_handlers]
        else:
            shared += callbacks
        memo |= {id(item): item for item in shared}
        return super().__deepcopy__(memo)


def _portable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Make the fields of a model picklable, as far as possible."""
    values = dict(fields)
    for name, value in fields.items():
        try:
            pickle.dumps(value)
        except _UNPICKLABLE:
            # Values that still cannot be pickled, such as a lambda, may be known to another
            # pickler.
            with suppress(TypeError):
                values[name] = _Pickled(_dumped(value, name))
    return values


class _Pickled:
    """A pickle inside another. Loading the outer one loads the inner one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


def _dumped(value: Any, name: str, *, rebuilds: bool = True) -> bytes:
    buffer = io.BytesIO()
    try:
        _ModelPickler(buffer, rebuilds=rebuilds).dump(value)
    except _UNPICKLABLE as error:
        raise TypeError(
            f"{name} cannot be pickled ({error}); leave out what is tied to this process, such "
            "as connections and HTTP clients, and set it again after loading"
        ) from error
    return buffer.getvalue()


def _dumped_model(model: Any, name: str) -> bytes:
    """Pickle a chat model as it is, or by the user's settings if it cannot be pickled."""
    with suppress(TypeError):  # it may hold clients
        return _dumped(model, name, rebuilds=False)
    return _dumped(model, name)


def dump_state(state: dict[Any, Any], *, empty: Sequence[str]) -> dict[Any, Any]:
    """Pickle the models in the state of a chain, and leave some of its private attributes empty.

    The pickle leaves out keys that were given to a model, so they must be in the environment where
    it is loaded. It keeps headers and bound arguments. A TypeError names settings that hold
    something that cannot be pickled.
    """
    values: dict[str, Any] = state["__dict__"]
    models = {name: _Pickled(_dumped_model(values[name], name)) for name in _MODELS}
    others = {name: value for name, value in values.items() if name not in _MODELS}
    private = {**(state["__pydantic_private__"] or {}), **dict.fromkeys(empty)}
    return {
        **state,
        "__dict__": {**_portable(others), **models},
        "__pydantic_private__": private,
    }


class _ModelPickler(pickle.Pickler):
    """Writes locks as free ones, and chat models as their class and the user's settings."""

    def __init__(self, buffer: io.BytesIO, *, rebuilds: bool) -> None:
        """Write all chat models as settings, or only those that hold keys."""
        super().__init__(buffer)
        self._rebuilds = rebuilds

    def reducer_override(self, obj: Any) -> Any:
        if make := _LOCKS.get(type(obj)):
            return make, ()
        if not isinstance(obj, BaseChatModel) or not (self._rebuilds or _keys_of(obj)):
            return NotImplemented
        # Fields that a class keeps out of exports are the clients that it made for itself.
        fields = type(obj).model_fields
        values = {
            name: getattr(obj, name)
            for name in (obj.model_fields_set & fields.keys()) - _keys_of(obj)
            if name in BaseChatModel.model_fields or not fields[name].exclude
        }
        return _rebuild, (type(obj), values, tuple(sorted(_keys_of(obj))))


def _keys_of(model: Any) -> set[str]:
    """Return the names of the fields that hold keys."""
    names = type(model).model_fields if isinstance(model, BaseModel) else ()
    return {name for name in names if isinstance(getattr(model, name, None), SecretStr)}


def _rebuild(
    kind: type[BaseChatModel], values: dict[str, Any], keys: tuple[str, ...] = ()
) -> BaseChatModel:
    try:
        return kind.model_validate(values, by_alias=True, by_name=True)
    except Exception as error:
        if not keys:
            raise
        raise ValueError(
            f"{kind.__name__} was pickled without its {', '.join(keys)}; set the "
            f"provider's environment variable where it is loaded ({type(error).__name__}: {error})"
        ) from error
