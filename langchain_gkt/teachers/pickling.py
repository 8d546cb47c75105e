"""Pickles chat models: they hold clients and locks, which are made anew when loaded."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, SecretStr

_MODELS = ("teacher", "student")


def dump_model(model: Any, name: str) -> bytes:
    """Pickle a chat model.

    Args:
        model: A chat model, wrapped or not. Keys given to it are left out of the pickle, so
            that they must be in the environment where it is loaded. Headers and arguments that
            are bound to it are not.
        name: What to call it in messages.

    Returns:
        A pickle; a model that cannot be pickled is represented by the settings given to it.

    Raises:
        TypeError: If the settings hold something that cannot be pickled.
    """
    if not any(map(_keys_of, _models(model))):
        with suppress(TypeError, AttributeError, pickle.PicklingError):  # it may hold clients
            return pickle.dumps(model)
    buffer = io.BytesIO()
    try:
        _ModelPickler(buffer).dump(model)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise TypeError(
            f"{name} cannot be pickled ({error}); leave out what is tied to this process, such "
            "as rate limiters and HTTP clients, and set it again after loading"
        ) from error
    return buffer.getvalue()


def load_model(data: bytes) -> Any:
    """Load what `dump_model` made.

    Args:
        data: The pickle.

    Returns:
        The model.
    """
    return pickle.loads(data)  # noqa: S301  it comes out of the chain's own pickle


def dump_state(state: dict[Any, Any], *, empty: Sequence[str]) -> dict[Any, Any]:
    """Pickle the models in the state of a chain.

    Args:
        state: What pydantic's ``__getstate__`` returned, with the fields ``teacher`` and
            ``student``.
        empty: Names of private attributes to leave out.

    Returns:
        The state to pickle.
    """
    models = {name: dump_model(state["__dict__"][name], name) for name in _MODELS}
    fields = {**state["__dict__"], **models}
    private = {**(state["__pydantic_private__"] or {}), **dict.fromkeys(empty)}
    return {**state, "__dict__": fields, "__pydantic_private__": private}


def load_state(state: dict[Any, Any]) -> dict[Any, Any]:
    """Undo `dump_state`.

    Args:
        state: What it returned.

    Returns:
        The state for pydantic's ``__setstate__``.
    """
    models = {name: load_model(state["__dict__"][name]) for name in _MODELS}
    fields = {**state["__dict__"], **models}
    return {**state, "__dict__": fields}


class _ModelPickler(pickle.Pickler):
    """Replaces each chat model by its class and the settings given to it."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, BaseChatModel):
            return NotImplemented
        # Fields that a class keeps out of exports are the clients it made for itself.
        fields = type(obj).model_fields
        given = {
            name: getattr(obj, name)
            for name in (obj.model_fields_set & fields.keys()) - _keys_of(obj)
            if name in BaseChatModel.model_fields or not fields[name].exclude
        }
        return _rebuild, (type(obj), given, tuple(sorted(_keys_of(obj))))


def _models(model: Any) -> Iterator[Any]:
    """Give a model and all that it wraps."""
    yield model
    for inner in (getattr(model, "bound", None), *(getattr(model, "runnables", None) or ())):
        if inner is not None:
            yield from _models(inner)


def _keys_of(model: Any) -> set[str]:
    """Return the names of the fields that hold keys."""
    names = type(model).model_fields if isinstance(model, BaseModel) else ()
    return {name for name in names if isinstance(getattr(model, name, None), SecretStr)}


def _rebuild(
    kind: type[BaseChatModel], given: dict[str, Any], keys: tuple[str, ...] = ()
) -> BaseChatModel:
    try:
        return kind.model_validate(given, by_alias=True, by_name=True)
    except Exception as error:
        if not keys:
            raise
        raise ValueError(
            f"{kind.__name__} was pickled without its {', '.join(keys)}; set the "
            f"provider's environment variable where it is loaded ({type(error).__name__}: {error})"
        ) from error
