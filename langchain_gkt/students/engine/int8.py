"""Eight-bit weights for students on a CPU."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from langchain_gkt.errors import StudentError

# Activations are rounded to this many steps on either side of 0. The larger number may overflow in
# the int8 instructions of older CPUs when weights are large.
_LEVELS = (127, 63)
_SMALLEST = 1e-30  # keeps a row of zeros from being divided by zero


class Int8Linear(torch.nn.Module):
    """A linear layer with int8 weights. It rounds activations to int8 at every call.

    Weights have one scale per output, activations one per row (a token). With a single scale,
    outliers of the first token would round all other rows away.
    """

    weight = None  # no tensor. Models that look at its type (T5) would cast their activations to it

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Quantize a layer on the CPU. It is not changed."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        largest = torch.maximum(-weight.amin(1), weight.amax(1)).clamp(min=0)
        scales = (largest / 127.5).clamp(min=torch.finfo(torch.float32).eps)
        # Multiplied, not divided, as torch's own quantizer does. Dividing changes some weights.
        quantized = (weight * (1 / scales)[:, None]).round_().clamp_(-128, 127).to(torch.int8)
        self._bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed = _pack(quantized, scales.double())
        self._levels = min(_LEVELS, key=lambda levels: self._error(weight, levels))

    def _error(self, weight: torch.Tensor, levels: int) -> float:
        """Return how far off products of random activations are."""
        inputs = torch.randn(8, self.in_features, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            return float((self._product(inputs, levels) - inputs @ weight.T).square().mean())

    def _product(self, inputs: torch.Tensor, levels: int) -> torch.Tensor:
        scales = inputs.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST)
        outputs: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            inputs / scales, 1 / levels, levels + 1, self._packed
        )
        return outputs.mul_(scales)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply the layer to float32 activations."""
        if inputs.numel() == self.in_features:
            # One row has one scale anyway, and torch computes it faster.
            outputs: torch.Tensor = torch.ops.quantized.linear_dynamic(
                inputs, self._packed, reduce_range=self._levels < 127
            )
        else:
            outputs = self._product(inputs, self._levels)
        return outputs if self._bias is None else outputs.add_(self._bias)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy plain tensors instead of the packed ones."""
        weight, _ = torch.ops.quantized.linear_unpack(self._packed)
        state = {name: value for name, value in self.__dict__.items() if name != "_packed"}
        return {**state, "unpacked": (weight.int_repr(), weight.q_per_channel_scales())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Pack the tensors again."""
        unpacked = state.pop("unpacked")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._packed = _pack(*unpacked)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight, scales = self.__getstate__()["unpacked"]
        destination |= {f"{prefix}weight": weight, f"{prefix}scales": scales}
        if self._bias is not None:
            destination[f"{prefix}bias"] = self._bias


def _pack(weight: torch.Tensor, scales: torch.Tensor) -> Any:
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        # The kernel takes its weights only as a tensor of a deprecated type.
        # docs/measurements/student-speed.md compares its successors.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
        quantized = torch._make_per_channel_quantized_tensor(weight, scales, zeros, 0)
    return torch.ops.quantized.linear_prepack(quantized, None)


def quantize(model: Any) -> Any:
    """Turn a model's linear layers into eight-bit ones, and all other weights into float32.

    The model, on the CPU, is changed layer by layer. So it never needs the memory of a float32 one.

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
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:  # a subclass may compute something else
                setattr(parent, name, Int8Linear(child))
    return model.float()
