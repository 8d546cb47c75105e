"""Models behind an address: vLLM, SGLang and llama-server, with token ids in and out."""

from __future__ import annotations

from functools import partial
from typing import Any

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.students.backends.entry import EngineEntry
from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.backends.source import ModelSource, refuse_device_map, shown

SERVER_NAMES = ("vllm", "sglang", "llama-server")
"""Servers that speak token ids, by their values of the field ``backend``."""


def _refuse(name: str, model: Any) -> None:
    if not isinstance(model, str):
        raise ValueError(
            f"backend={name!r} runs its model behind base_url, and model={shown(model)} is loaded "
            "here; give the folder or hub id of its tokenizer as model"
        )


def _load(name: str, source: ModelSource) -> Backend:
    refuse_device_map(source, name)
    for field, default in (("device", None), ("dtype", "auto")):
        if (value := getattr(source, field)) != default:
            raise ConfigurationError(
                f"{field}={value!r} is not supported by backend={name!r}: the server was started "
                f"with its own; leave {field} out"
            )
    from langchain_gkt.students.backends.server.backend import ServerBackend

    return ServerBackend(name, source)


SERVERS = tuple(
    EngineEntry(
        name=name,
        load=partial(_load, name),
        refuse=partial(_refuse, name),
        module="httpx",
        package="httpx",
        extra="openai",
        is_server=True,
    )
    for name in SERVER_NAMES
)
