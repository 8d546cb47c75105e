"""Cascade attention: reads the keys and values of a shared prefix once for all rows.

With several rows in a batch, reading keys and values is most of the work of a decoding step. The
model is not changed. The keys that the KV cache returns are a tensor subclass. It holds the shared
keys and values too, and computes scaled dot product attention itself. The log-sum-exps of their
softmaxes merge the parts. docs/measurements/student-speed.md says what it brings.

Query heads that read the same key head are folded into queries of that head. For bfloat16 on a
CPU this alone is worth it, so keys are wrapped there even without a shared prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Keys and values that several rows begin with."""

    length: int  # how many tokens
    layers: list[tuple[torch.Tensor, torch.Tensor]]  # each of shape (heads, tokens, head size)


Group = tuple[torch.Tensor | None, SharedPrefix]
"""Which rows begin with a prefix (None for all), and the prefix."""


class SharedPrefixKeys(torch.Tensor):
    """The rows' own keys, with the shared prefixes attached, if there are any."""

    _groups: list[tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]]

    @classmethod
    def wrap(cls, keys: torch.Tensor, groups: list[Group], layer: int) -> SharedPrefixKeys:
        """Attach the shared prefixes of a layer to its keys, and return them as a view."""
        wrapped = keys.as_subclass(cls)
        wrapped._groups = [(rows, *prefix.layers[layer]) for rows, prefix in groups]
        return wrapped

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Compute attention, and allow reading the shape. Refuse everything else."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is scaled_dot_product_attention:
                return _attend(*args, **kwargs)
            if getattr(func, "__name__", "") in ("__get__", "size", "dim", "is_contiguous"):
                return func(*args, **kwargs)
        # Anything else would silently leave out the shared part.
        raise RuntimeError(f"{func} is not known to work on a shared prefix")


def _attend(
    query: torch.Tensor,
    key: SharedPrefixKeys,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attend to the rows' own columns and to their prefixes. One new token per row."""
    rows, heads, queries, size = query.shape
    kv_heads = key.shape[1]
    if (queries != 1 and heads != kv_heads) or (is_causal and queries != 1) or dropout_p:
        raise RuntimeError("a shared prefix supports steps of one token")
    scale = size**-0.5 if scale is None else scale
    # Query heads that read the same key head become queries of that head.
    grouped = query.reshape(rows, kv_heads, -1, size)
    own = key.as_subclass(torch.Tensor)
    out, total = _part(grouped, own, value, scale, attn_mask)
    for which, prefix_keys, prefix_values in key._groups:
        asking = grouped if which is None else grouped[which]
        count, _, each, _ = asking.shape
        # One matrix product per head, for all rows at once.
        stacked = asking.transpose(0, 1).reshape(1, kv_heads, count * each, size)
        part, part_total = _part(stacked, prefix_keys[None], prefix_values[None], scale, None)
        part = part.view(kv_heads, count, each, -1).transpose(0, 1)
        part_total = part_total.view(kv_heads, count, each, 1).transpose(0, 1)
        if which is None:
            out, total = _merge(out, total, part, part_total)
        else:
            merged = _merge(out[which], total[which], part, part_total)
            out, total = out.index_copy(0, which, merged[0]), total.index_copy(0, which, merged[1])
    return out.reshape(rows, heads, queries, -1)


def _part(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention over some columns, and the log of its softmax's denominator."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    if query.device.type == "cpu":
        # Uses the kernel behind torch's function, because only it returns the denominator too. It
        # is private to torch. If it changes, ModelRunner finds out and shares no prefixes.
        if mask is not None:
            mask = mask.expand(-1, -1, query.shape[2], -1)
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, False, attn_mask=mask, scale=scale
        )
        return out, total[..., None]
    scores = ((query * scale) @ keys.transpose(-1, -2)).float()
    if mask is not None:
        scores = scores + mask
    total = scores.logsumexp(-1, keepdim=True)
    return (scores - total).exp().to(values.dtype) @ values, total


def _merge(
    out: torch.Tensor, total: torch.Tensor, part: torch.Tensor, part_total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.logaddexp(total, part_total)
    own, shared = ((each - both).exp().to(out.dtype) for each in (total, part_total))
    return out * own + part * shared, both
