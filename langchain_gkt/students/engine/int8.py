"""Eight-bit weights for students on a CPU."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from langchain_gkt.errors import StudentError


class Int8Linear(torch.nn.Module):
    """A linear layer with int8 weights; activations are rounded to int8 at every call.

    Weights have one scale per output, activations one per call.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Quantize a layer.

        Args:
            linear: A float32 layer on the CPU; it is not changed.
        """
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        largest = torch.maximum(-weight.amin(1), weight.amax(1)).clamp(min=0)
        scales = (largest / 127.5).clamp(min=torch.finfo(torch.float32).eps)
        # Multiplied, not divided, as torch's own quantizer does: some weights differ otherwise.
        quantized = (weight * (1 / scales)[:, None]).round_().clamp_(-128, 127).to(torch.int8)
        bias = None if linear.bias is None else linear.bias.detach()
        self._packed = _pack(quantized, scales.double(), bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        # With the range reduced, products of older CPUs' int8 instructions cannot overflow.
        outputs: torch.Tensor = torch.ops.quantized.linear_dynamic(
            inputs, self._packed, reduce_range=True
        )
        return outputs

    def weight(self) -> torch.Tensor:
        """Return the int8 weights.

        A method, because models that look at the type of a ``weight`` tensor (T5) would cast
        their activations to it.
        """
        weight: torch.Tensor = torch.ops.quantized.linear_unpack(self._packed)[0].int_repr()
        return weight

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy plain tensors instead of the packed ones."""
        weight, bias = torch.ops.quantized.linear_unpack(self._packed)
        state = {name: value for name, value in self.__dict__.items() if name != "_packed"}
        return {**state, "unpacked": (weight.int_repr(), weight.q_per_channel_scales(), bias)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Pack the tensors again."""
        unpacked = state.pop("unpacked")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._packed = _pack(*unpacked)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight, scales, bias = self.__getstate__()["unpacked"]
        destination |= {f"{prefix}weight": weight, f"{prefix}scales": scales}
        if bias is not None:
            destination[f"{prefix}bias"] = bias


def _pack(weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> Any:
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        # The kernel takes its weights as a tensor of a deprecated type, and this type alone.
        # Its successor (onednn.qlinear_pointwise) took 1.1 to 1.25 times as long.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
        quantized = torch._make_per_channel_quantized_tensor(weight, scales, zeros, 0)
    return torch.ops.quantized.linear_prepack(quantized, bias)


def quantize(model: Any) -> Any:
    """Turn a model's linear layers into eight-bit ones.

    Weights get one scale per output, activations one per call: with neighbours in a batch the
    activations' scale may differ, so that unlike in float32 a request's text may depend on them.

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
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:  # a subclass may compute something else
                setattr(parent, name, Int8Linear(child))
    return model
