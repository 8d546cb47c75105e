"""torch: the engine of every model of the hub, named ``torch``."""

from __future__ import annotations

from typing import Any

from langchain_gkt.students.backends.entry import EngineEntry
from langchain_gkt.students.backends.openvino.folder import has_torch_weights, is_openvino
from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.backends.source import ModelSource, shown


def _refuse(model: Any) -> None:
    if is_openvino(model) and not has_torch_weights(model):
        raise ValueError(
            f"backend='torch' cannot run model={shown(model)}, which was exported for "
            "OpenVINO; name the folder it was made of, or leave backend out"
        )


def _load(source: ModelSource) -> Backend:
    from langchain_gkt.students.backends.pytorch.loading import load_or_use
    from langchain_gkt.students.engine.engine import Engine

    model, tokenizer = load_or_use(source)
    return Engine(model, tokenizer, source.config)


TORCH = EngineEntry(name="torch", load=_load, refuse=_refuse)
