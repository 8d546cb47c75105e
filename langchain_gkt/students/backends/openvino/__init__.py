"""OpenVINO: the engine of exported folders, named ``openvino`` (extra ``openvino``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_gkt.students.backends.entry import EngineEntry
from langchain_gkt.students.backends.openvino.folder import EXPORT, is_openvino, read_source
from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.backends.source import ModelSource, refuse_device_map, shown


def _refuse(model: Any) -> None:
    # A hub id may be that of an exported folder, which only fetching it would show.
    if not isinstance(model, str) or (Path(model).expanduser().is_dir() and not is_openvino(model)):
        raise ValueError(
            f"backend='openvino' runs exported folders and GGUF files, and model={shown(model)} "
            f"is none; {EXPORT}"
        )


def _claim(model: Any) -> str | None:
    return "the model was exported for OpenVINO" if is_openvino(model) else None


def _load(source: ModelSource) -> Backend:
    refuse_device_map(source, "openvino")
    from langchain_gkt.students.backends.openvino.backend import OpenVINOBackend

    openvino_source = read_source(source.model, source.tokenizer)
    return OpenVINOBackend(openvino_source, source.config, source.device, source.dtype)


OPENVINO = EngineEntry(
    name="openvino",
    load=_load,
    refuse=_refuse,
    claim=_claim,
    module="openvino_genai",
    package="openvino-genai",
    extra="openvino",
)
