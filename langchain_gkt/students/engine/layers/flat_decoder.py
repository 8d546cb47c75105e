"""Decoding steps of Llama-like models without the layers of Python in between.

A step of one token per row is so little work that transformers' own way through a model (masks,
attention interfaces, norms of six operations) is a third of its time. Here the same modules are
called from one loop. It knows a few architectures, and `ModelRunner` uses it only where its
logits are those of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from langchain_gkt.students.engine.kv.kv_cache import BatchKVCache

_FAMILIES = {f"{name}ForCausalLM": name for name in ("Llama", "Mistral", "Qwen2")}


class FlatDecoder:
    """Decodes one token per row of a batch."""

    def __init__(self, model: Any) -> None:
        """Take the modules of a model for which `supports` is true."""
        core = model.model
        self._embed, self._rotary, self._head = core.embed_tokens, core.rotary_emb, model.lm_head
        self._layers, self._norm = list(core.layers), core.norm

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether a model is of a known architecture, on a CPU, and does nothing of its own.

        Args:
            model: A transformers model.
        """
        family = _FAMILIES.get(type(model).__name__)
        if family is None or model.device.type != "cpu":
            return False
        return (
            model.config._attn_implementation == "sdpa"
            and type(model).__module__.startswith("transformers.models.")
            and all(
                type(module).__name__ == f"{family}{role}"
                and type(module).__module__ == type(model).__module__
                # What a hook or another forward does would be left out.
                and not (module._forward_hooks or module._forward_pre_hooks)
                and "forward" not in vars(module)
                for role, module in _bypassed(model)
            )
        )

    def step(self, tokens: torch.Tensor, batch: BatchKVCache) -> torch.Tensor:
        """Append one token to every row.

        Args:
            tokens: One id per row, shape (rows,).
            batch: The rows' KV cache.

        Returns:
            Logits, shape (rows, vocabulary).
        """
        arguments = batch.begin_step()
        hidden = self._embed(tokens)
        rows = len(tokens)
        cos, sin = self._rotary(hidden, arguments["position_ids"])
        half = sin.shape[-1] // 2
        # The sign of the turned half goes into the sine, once for all layers.
        sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        mask = _additive(arguments.get("attention_mask"), hidden.dtype)
        for layer, cache in zip(self._layers, batch.layers, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            size = attention.head_dim
            normed = _normed(hidden, layer.input_layernorm)
            key, value = attention.k_proj(normed), attention.v_proj(normed)
            turning = torch.cat((key, attention.q_proj(normed)), -1).view(rows, -1, size)
            turning = turning * cos + turning.roll(half, -1) * sin
            groups = key.shape[-1] // size
            keys, values = cache.update(
                turning[:, :groups, None], value.view(rows, groups, 1, size)
            )
            # Query heads that read the same key head become queries of that head.
            query = turning[:, groups:].reshape(rows, groups, -1, size)
            attended = scaled_dot_product_attention(
                query,
                keys,
                values,
                attn_mask=None if mask is None else mask.expand(-1, -1, query.shape[2], -1),
                scale=attention.scaling,
            )
            hidden = hidden + attention.o_proj(attended.reshape(rows, -1))
            normed = _normed(hidden, layer.post_attention_layernorm)
            hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        logits: torch.Tensor = self._head(_normed(hidden, self._norm))
        batch.end_step()
        return logits


def _bypassed(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules that are not called, only their parts, each with its role's name."""
    core = model.model
    yield "ForCausalLM", model
    yield "Model", core
    yield "RMSNorm", core.norm
    for layer in core.layers:
        yield "DecoderLayer", layer
        yield "Attention", layer.self_attn
        yield "MLP", layer.mlp
        yield "RMSNorm", layer.input_layernorm
        yield "RMSNorm", layer.post_attention_layernorm


def _normed(hidden: torch.Tensor, norm: Any) -> torch.Tensor:
    return rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return a mask of booleans, shape (rows, columns), as one that is added to scores."""
    if mask is None:
        return None
    added = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf"))
    return added[:, None, None]
