"""Which engine runs a model, based on the model and on what is installed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.students.backends.entry import EngineEntry
from langchain_gkt.students.backends.llamacpp import LLAMACPP
from langchain_gkt.students.backends.openvino import OPENVINO
from langchain_gkt.students.backends.pytorch import TORCH
from langchain_gkt.students.backends.server import SERVERS
from langchain_gkt.students.backends.source import ModelSource, shown

ENGINES: tuple[EngineEntry, ...] = (TORCH, LLAMACPP, OPENVINO, *SERVERS)
"""All engines, in the order of their claims. torch runs what no other one claims."""


@dataclass(frozen=True)
class BackendChoice:
    """The engine that was chosen."""

    engine: EngineEntry
    reason: str  # to follow "because"

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name


def choose_for(source: ModelSource) -> BackendChoice:
    """Choose the engine of a student, and check that it and an address go together.

    Raises:
        ValueError: As for `choose_backend`, or if a server has no address or another engine has
            one.
        ImportError: As for `choose_backend`.
    """
    servers = " or ".join(f"backend={engine.name!r}" for engine in ENGINES if engine.is_server)
    if source.base_url is not None and source.backend == "auto":
        raise ConfigurationError(
            f"base_url={source.base_url!r} needs a backend that says what answers there: {servers}"
        )
    choice = choose_backend(source.model, source.backend)
    if choice.engine.is_server and source.base_url is None:
        raise ConfigurationError(
            f"backend={choice.name!r} needs base_url, the address of the server, such as "
            "'http://127.0.0.1:8000/v1'"
        )
    if source.base_url is not None and not choice.engine.is_server:
        raise ConfigurationError(
            f"base_url={source.base_url!r} has no meaning for backend={choice.name!r}, which runs "
            f"the model in this process; leave it out, or take {servers}"
        )
    return choice


def choose_backend(model: Any, backend: str) -> BackendChoice:
    """Choose the engine of a model, as the user's ``backend`` says.

    Raises:
        ValueError: If there is no such engine, or it cannot run such a model.
        ImportError: If the engine that the user chose is not installed.
    """
    if backend == "auto":
        return _for_model(model)
    engines = {engine.name: engine for engine in ENGINES}
    if backend not in engines:
        known = ", ".join(["auto", *engines])
        raise ValueError(f"backend={backend!r} is unknown; take one of {known}")
    engine = engines[backend]
    engine.refuse(model)
    if not _is_installed(engine):
        raise _missing(engine, f"backend={backend!r}")
    return BackendChoice(engine, f"backend={backend!r} was asked for")


def _for_model(model: Any) -> BackendChoice:
    reason = "the model is no GGUF file"
    for engine in ENGINES:
        if (claim := engine.claim(model)) is None:
            continue
        if _is_installed(engine):
            return BackendChoice(engine, claim)
        try:
            TORCH.refuse(model)
        except ValueError:
            raise _missing(engine, f"model={shown(model)}") from None
        if engine.instead:
            _warn_once(engine.instead)
        reason = f"{engine.package} is not installed"
    return BackendChoice(TORCH, reason)


def _is_installed(engine: EngineEntry) -> bool:
    return engine.module is None or find_spec(engine.module) is not None


def _missing(engine: EngineEntry, what: str) -> ImportError:
    return ImportError(
        f"{what} needs {engine.package}; install it with: "
        f'pip install "langchain-gkt[{engine.extra}]"'
    )


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)
