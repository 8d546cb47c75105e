"""The forward passes of a student: prefill one request, decode a batch, or run one unbatched.

Comparing logits shows how a model can be run. A few tokens in a padded batch must have the logits
that they have alone. So must faster ways to compute them. Models that fail run one request at a
time, each with a cache of its own.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from langchain_gkt.students.engine.int8 import Int8Linear
from langchain_gkt.students.engine.kv.kv_cache import BatchKVCache, KVCache
from langchain_gkt.students.engine.kv.shared_prefix import SharedPrefix
from langchain_gkt.students.engine.layers.onednn import pays_without_onednn, without_onednn
from langchain_gkt.students.engine.requests.request import Request
from langchain_gkt.students.engine.vocabulary import input_embedding

_log = logging.getLogger(__name__)

# Logits of the same tokens may differ by this share of their spread. Quantized weights need more,
# because activations are rounded with their neighbours'. A wrong result is off by over 1.
_EXACT, _ROUNDED = 1e-3, 0.5

# Models' names for the KV cache argument: since transformers 5.24, and before.
_CACHE_NAMES = ("cache", "past_key_values")


@dataclass
class UnbatchedState:
    """The cache of a request that runs outside the batch: of the model's own kind, or none."""

    arguments: dict[str, Any]  # the model's, beside the ids
    pending: list[int]  # ids to feed at the next step
    seen: list[int] | None = None  # all ids so far, if the model has no cache


class ModelRunner:
    """Runs one model. All methods belong to one thread, in inference mode."""

    def __init__(
        self, model: Any, *, is_encoder_decoder: bool, trial_ids: Sequence[int] = ()
    ) -> None:
        """Inspect a transformers model, without running it.

        The ``trial_ids``, to try it with, are of ordinary text, at least 5. Else they are the
        lowest. Int8 rounds the outliers of control tokens far more coarsely.
        """
        self.model = model
        self._trial_ids = list(trial_ids) if len(trial_ids) >= 5 else [1, 2, 1, 3, 2]
        self.is_encoder_decoder = is_encoder_decoder
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in _CACHE_NAMES if name in parameters), None)
        if self._cache_name is None:
            warnings.warn(
                f"the student ({type(model).__name__}) has no KV cache; every token costs "
                "a pass over the whole text",
                UserWarning,
                stacklevel=2,
            )
        # Logits of the last position only, if the model can. The others are not read.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._detected = False
        self.can_batch = self.can_share_prefixes = False
        self._fold_heads = False
        self._row_without_onednn = pays_without_onednn(model)
        self.layers = self.bytes_per_token = 0

    @property
    def device(self) -> torch.device:
        """The device the ids must be on."""
        # The weights of an offloaded model are on no device until they are needed.
        for module in (self.model, input_embedding(self.model)):
            hook = getattr(module, "_hf_hook", None)
            if (device := getattr(hook, "execution_device", None)) is not None:
                return torch.device(device)
        return torch.device(self.model.device)

    def detect_capabilities(self) -> None:
        """Find out, once, whether requests can be batched and can share prefixes."""
        if self._detected:
            return
        self._detected = True
        if self.is_encoder_decoder or self._cache_name is None:
            return
        if _rotates_by_length(self.model.config.to_dict()):
            return
        layers = DynamicCache(config=self.model.config).layers
        if not layers or any(
            type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
        ):
            return
        self.layers = len(layers)
        cache = KVCache(self.layers, len(self._trial_ids))
        try:
            trial = cache, self._run(cache, self._trial_ids, last_only=False)
        except Exception as error:  # noqa: BLE001  models refuse a cache in ways of their own
            _log.info("requests run unbatched: %r", error)
            return
        self.bytes_per_token = cache.nbytes // len(self._trial_ids)
        full = not any(isinstance(layer, DynamicSlidingWindowLayer) for layer in layers)
        # Without float32 torch's attention of grouped heads is several times slower on a CPU.
        if self.device.type == "cpu" and self.model.dtype.itemsize < 4:
            self._fold_heads = True
            self._fold_heads = self._batch_agrees(trial, "use torch's attention of grouped heads")
        self.can_batch = self._fold_heads or self._batch_agrees(trial, "run one after the other")
        if not (self.can_batch and full):
            return
        self.can_share_prefixes = self._batch_agrees(
            trial, "share no prefixes while they are decoded", shared=1
        )

    def _batch_agrees(
        self, trial: tuple[KVCache, torch.Tensor], otherwise: str, *, shared: int = 0
    ) -> bool:
        """Whether padded rows in a batch have the logits of the rows alone, which the trial gave.

        Some rows hold a few ``shared`` tokens as a prefix. The log says what happens ``otherwise``.
        """
        ids, (cache, alone) = self._trial_ids, trial
        lengths = [len(ids) - 1, len(ids) // 2, len(ids) // 2 + 1]
        try:
            prefix = SharedPrefix(shared, cache.segment(0, shared)) if shared else None
            batch = self.new_batch()
            for length, row_prefix in zip(lengths, (prefix, prefix, None), strict=True):
                cache.window.end = length
                batch.add(cache, row_prefix)
            got = self.decode(batch, [ids[length] for length in lengths])
        except Exception as error:  # noqa: BLE001  models refuse a cache in ways of their own
            # The model needs its own cache, or uses its keys in its own way.
            _log.info("requests %s: %r", otherwise, error)
            return False
        want = alone[lengths].float()
        off = float((got.float() - want).square().mean().sqrt() / want.std())
        if not off <= (_EXACT if self.is_exact else _ROUNDED):
            _log.warning(
                "the student (%s) is slower than it could be: in a trial batch its logits were "
                "off by %.3g of their spread, so requests %s",
                type(self.model).__name__,
                off,
                otherwise,
            )
            return False
        return True

    def new_batch(self) -> BatchKVCache:
        """Return an empty batch for `decode`."""
        return BatchKVCache(self.layers, self.device, fold_heads=self._fold_heads)

    def new_cache(self, columns: int) -> KVCache:
        """Return an empty cache for `prefill`, with room for this many ids."""
        return KVCache(self.layers, columns, fold_heads=self._fold_heads)

    @functools.cached_property
    def is_exact(self) -> bool:
        """Whether the model computes in float32 or better throughout.

        If so, texts depend neither on how ids are split into passes nor on other requests.
        """
        if any(p.dtype not in (torch.float32, torch.float64) for p in self.model.parameters()):
            return False
        return not any(
            isinstance(module, Int8Linear) or "quant" in type(module).__module__
            for module in self.model.modules()
        )

    def _run(self, cache: KVCache, ids: list[int], *, last_only: bool = True) -> torch.Tensor:
        at = cache.window.end
        positions = torch.arange(at, at + len(ids), device=self.device)[None]
        with self._products_of(len(ids)):
            out = self.model(
                input_ids=self._tensor(ids),
                position_ids=positions,
                **self._cached(cache.cache),
                **(self._last_only if last_only else {}),
            )
        cache.window.end += len(ids)
        logits: torch.Tensor = out.logits[0]
        return logits

    def prefill(self, cache: KVCache, ids: list[int]) -> torch.Tensor:
        """Append ids to a request. Return the last one's logits, shape (vocabulary,)."""
        return self._run(cache, ids)[-1]

    def decode(self, batch: BatchKVCache, tokens: list[int]) -> torch.Tensor:
        """Append one token to every row of a batch. Return logits, shape (rows, vocabulary)."""
        ids = torch.tensor(tokens, device=self.device)
        with self._products_of(len(tokens)):
            arguments = {**batch.begin_step(), **self._cached(batch.cache)}
            out = self.model(input_ids=ids[:, None], **arguments)
        batch.end_step()
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def start_unbatched(self, request: Request) -> UnbatchedState:
        """Set up a request that runs outside the batch: its cache, and its encoder's output."""
        config = self.model.config
        if not self.is_encoder_decoder:
            ids = [*request.prompt, *request.kept]
            if self._cache_name is None:
                return UnbatchedState({}, ids, seen=[])
            return UnbatchedState(self._cached(DynamicCache(config=config)), ids)
        cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        encoded = self.model.get_encoder()(self._tensor(request.prompt))
        start = self.model.generation_config.decoder_start_token_id
        if start is None:
            start = config.decoder_start_token_id
        arguments = {**self._cached(cache), "encoder_outputs": encoded}
        return UnbatchedState(arguments, [start, *request.kept])

    def step_unbatched(self, state: UnbatchedState) -> torch.Tensor:
        """Feed a request's pending ids. Return the last one's logits, shape (vocabulary,)."""
        ids = state.pending
        if state.seen is not None:
            state.seen.extend(ids)
            ids = state.seen
        name = "decoder_input_ids" if self.is_encoder_decoder else "input_ids"
        logits: torch.Tensor = self.model(
            **{name: self._tensor(ids)}, **state.arguments, **self._last_only
        ).logits[0, -1]
        return logits

    def _products_of(self, rows: int) -> AbstractContextManager[None]:
        """Return the context in which to run a pass of this many rows."""
        return without_onednn() if rows == 1 and self._row_without_onednn else nullcontext()

    def _cached(self, cache: Cache) -> dict[str, Any]:
        assert self._cache_name is not None
        return {self._cache_name: cache, "use_cache": True}

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.device)


def _rotates_by_length(config: Any) -> bool:
    """Whether positions depend on the longest row of a batch, and so on a row's neighbours."""
    if not isinstance(config, dict):
        return False
    kind = config.get("rope_type", config.get("type"))
    return kind in ("longrope", "dynamic") or any(map(_rotates_by_length, config.values()))
