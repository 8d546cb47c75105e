"""Eight-bit weights for students on a CPU."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from langchain_gkt.errors import StudentError


def quantize(model: Any) -> Any:
    """Turn a model's linear layers into eight-bit ones.

    Weights get one scale per output, activations one per call: with neighbours in a batch the
    activations' scale may differ, so that unlike in float32 a row's text may depend on them.

    Args:
        model: A float32 model on the CPU; it is changed.

    Returns:
        The same model.

    Raises:
        StudentError: If most of its weights are not in linear layers.
    """
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    embedded = {
        id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding)
    }
    inside = sum(m.weight.numel() for m in linear if id(m.weight) not in embedded)
    rest = sum(p.numel() for p in model.parameters()) - sum(embedded.values())
    if inside < rest / 2:
        raise StudentError(
            f"dtype='int8' speeds up torch.nn.Linear layers, and {type(model).__name__} keeps "
            f"only {inside:,} of its {rest:,} weights in them; use dtype='auto' or 'bfloat16'"
        )
    with warnings.catch_warnings():
        # Deprecated in favour of torchao, whose eager kernels were slower than float32 (0.5x).
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
        torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model,
            {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig},
            inplace=True,
        )
    return model
