"""Whether eight-bit weights are faster on this processor."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch

from langchain_gkt.students.engine.int8 import Int8Linear
from langchain_gkt.students.engine.layers.onednn import pays_without_onednn, without_onednn
from langchain_gkt.students.engine.layers.widening import WideningLinear, has_bfloat16

ROWS = (1, 8)
"""Numbers of simultaneous requests to try."""
# Tries at most this many weights: more than a processor's cache holds, and quickly done.
_WEIGHTS = 2**26
# In smaller models the layers are not what takes the time.
_SMALLEST = 2**24
_PASSES = 3
_NOISE = 1.05


def layer_seconds(model: Any) -> dict[int, float] | None:
    """Time the linear layers of a model on the CPU, on random activations.

    Returns:
        Seconds for each number of rows in `ROWS`, the best of a few passes. None if the model is
        too small to measure.
    """
    layers, weights = [], 0
    for layer in model.modules():
        if type(layer) in (torch.nn.Linear, Int8Linear) and weights < _WEIGHTS:
            layers.append(layer)
            weights += layer.in_features * layer.out_features
    if weights < _SMALLEST:
        return None
    dtype = torch.float32 if isinstance(layers[0], Int8Linear) else model.dtype
    widened = dtype == torch.bfloat16 and not has_bfloat16()
    forward = WideningLinear.forward if widened else type(layers[0]).forward
    seconds = {}
    for rows in ROWS:
        alone = rows == 1 and pays_without_onednn(model)
        steps = [(layer, torch.randn(rows, layer.in_features).to(dtype)) for layer in layers]
        with torch.inference_mode(), without_onednn() if alone else nullcontext():
            seconds[rows] = min(_pass_seconds(forward, steps) for _ in range(_PASSES))
    return seconds


def _pass_seconds(
    forward: Callable[..., torch.Tensor], steps: Iterable[tuple[Any, torch.Tensor]]
) -> float:
    start = time.perf_counter()
    for layer, inputs in steps:
        forward(layer, inputs)
    return time.perf_counter() - start


def warn_if_slower(saved: dict[int, float] | None, quantized: dict[int, float] | None) -> None:
    """Warn if int8 is slower than the saved type, by what `layer_seconds` returned for both."""
    if saved is None or quantized is None:
        return
    factors = {rows: quantized[rows] / saved[rows] for rows in ROWS}
    if max(factors.values()) > _NOISE:
        times = " and ".join(f"{factor:.1f} times with {n}" for n, factor in factors.items())
        warnings.warn(
            "dtype='int8' is not faster here than the type in which the student was saved: its "
            f"linear layers take {times} request(s) at once. Leave dtype='auto', unless you need "
            "the memory",
            UserWarning,
            stacklevel=2,
        )
