"""Bfloat16 weights on CPUs that have no instructions for them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

# Up to this many rows, torch's own product of a vector and a matrix is the fastest.
_FEW_ROWS = 2
# Weights to widen at once. In float32 they should stay in the processor's cache.
_BLOCK = 2**19
# With more rows than this the products cost far more than the memory.
_MANY_ROWS = 64


class WideningLinear(torch.nn.Linear):
    """A bfloat16 layer that multiplies in float32, a block of its weights at a time.

    Without bfloat16 instructions torch multiplies such matrices several times more slowly than
    float32 ones. Widening them first costs less, and rounds only once.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        rows = inputs.numel() // self.in_features
        if rows <= _FEW_ROWS:
            return linear(inputs, self.weight, self.bias)
        step = self.out_features if rows > _MANY_ROWS else max(1, _BLOCK // self.in_features)
        wide = inputs.float()
        outputs = inputs.new_empty(*inputs.shape[:-1], self.out_features)
        for start in range(0, self.out_features, step):
            part = slice(start, start + step)
            bias = None if self.bias is None else self.bias[part].float()
            outputs[..., part] = linear(wide, self.weight[part].float(), bias)
        return outputs


def cpu_capabilities() -> dict[str, Any]:
    """Return what torch knows of this CPU. Empty where this torch does not know."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself, or is of a kind that was not measured."""
    capabilities = cpu_capabilities()
    if capabilities.get("architecture") != "x86_64":
        return True
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def widen_linears(model: Any) -> None:
    """Make the bfloat16 layers of a model on the CPU multiply in float32. Their weights stay."""
    for module in model.modules():
        # A subclass may compute something else.
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.bfloat16:
            module.__class__ = WideningLinear
