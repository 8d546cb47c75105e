"""Bfloat16 passes of one row, on CPUs that have instructions for bfloat16."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from langchain_gkt.students.engine.forks import in_forked_child
from langchain_gkt.students.engine.layers.widening import cpu_capabilities

_lock = threading.Lock()
_inside = 0
_was_enabled = True


def pays_without_onednn(model: Any) -> bool:
    """Whether torch runs one row of a model faster without oneDNN.

    oneDNN reorders a bfloat16 layer's weights at every call. A single row does not earn that back.
    Float32 and int8 layers do not go through oneDNN.
    """
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        return False
    capabilities = cpu_capabilities()
    # Other architectures were not measured. X86 without the instructions never uses oneDNN here.
    return capabilities.get("architecture") == "x86_64" and bool(capabilities.get("avx512_bf16"))


@contextmanager
def without_onednn() -> Iterator[None]:
    """Switch oneDNN off for the block.

    The switch holds for the whole process. Meanwhile other threads compute correctly, but may take
    longer. The last thread to leave restores it.
    """
    global _inside, _was_enabled
    with _lock:
        if not _inside:
            _was_enabled = bool(torch.backends.mkldnn.enabled)
            torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                torch.backends.mkldnn.enabled = _was_enabled  # type: ignore[assignment]


@in_forked_child
def _start_anew() -> None:
    """Forget the threads that a forked child does not have."""
    global _inside, _lock
    _lock = threading.Lock()
    if _inside:
        _inside = 0
        torch.backends.mkldnn.enabled = _was_enabled  # type: ignore[assignment]
