"""llama.cpp: the engine of GGUF files, named ``llamacpp`` (extra ``llamacpp``)."""

from __future__ import annotations

from typing import Any

from langchain_gkt.students.backends.entry import EngineEntry
from langchain_gkt.students.backends.gguf import (
    gguf_source,
    load_tokenizer,
    local_file,
    read_header,
)
from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.backends.source import ModelSource, refuse_device_map, shown


def _refuse(model: Any) -> None:
    if gguf_source(model) is None:
        raise ValueError(
            f"backend='llamacpp' runs GGUF files, and model={shown(model)} is none; name a "
            ".gguf file, or leave backend out"
        )


def _claim(model: Any) -> str | None:
    if gguf_source(model) is None:
        return None
    return "the model is a GGUF file and xllamacpp is installed"


def _load(source: ModelSource) -> Backend:
    file = gguf_source(source.model)
    assert file is not None
    refuse_device_map(source, "llamacpp")
    if source.dtype != "auto":
        raise ValueError(
            f"dtype={source.dtype!r} is not supported by llama.cpp, which runs a .gguf file in its "
            "own types; leave dtype out, or use backend='torch'"
        )
    header = read_header(local_file(file))
    tokenizer = source.tokenizer or load_tokenizer(header.path)
    from langchain_gkt.students.backends.llamacpp.backend import LlamaCppBackend

    return LlamaCppBackend(header, tokenizer, source.config, source.device)


LLAMACPP = EngineEntry(
    name="llamacpp",
    load=_load,
    refuse=_refuse,
    claim=_claim,
    module="xllamacpp",
    package="xllamacpp",
    extra="llamacpp",
    instead="this .gguf file is unpacked and run by torch; llama.cpp runs it as it is, usually "
    'much faster: pip install "langchain-gkt[llamacpp]"',
)
