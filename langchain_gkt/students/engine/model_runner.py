"""The forward passes of a student: prefill one row, step a batch, or step one row apart.

How a model can be run is found out by trying: a few tokens in a padded batch must give the
logits they give alone. Models that fail run row by row, each with a cache of its own.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from langchain_gkt.students.engine.kv_cache import Batch, KeyValues
from langchain_gkt.students.engine.request import Row
from langchain_gkt.students.engine.shared_prefix import Trunk

_log = logging.getLogger(__name__)

# Logits of the same tokens may differ by this share of their spread. Weights of few bits need
# room, because activations are rounded with their neighbours'; a wrong path is off by over 1.
_EXACT, _ROUNDED = 1e-3, 0.5


@dataclass
class Apart:
    """A row that runs by itself, with a cache of the model's own kind or with none.

    Attributes:
        arguments: The model's arguments beside the ids.
        seen: All ids so far, where the model has no cache.
    """

    arguments: dict[str, Any]
    seen: list[int] | None = None
    pending: list[int] = field(default_factory=list)


class Forward:
    """Runs one model. All methods belong to one thread, in inference mode."""

    def __init__(self, model: Any, *, is_encoder_decoder: bool) -> None:
        """Look at a model, without running it.

        Args:
            model: A transformers model.
            is_encoder_decoder: Whether it reads the prompt with an encoder.
        """
        self.model = model
        self.is_encoder_decoder = is_encoder_decoder
        parameters = inspect.signature(model.forward).parameters
        self.has_cache = "past_key_values" in parameters
        if not self.has_cache:
            warnings.warn(
                f"the student ({type(model).__name__}) has no KV cache; every token costs "
                "a pass over the whole text",
                UserWarning,
                stacklevel=2,
            )
        # Logits of the last position only, where the model can: the others are not read.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._tried = False
        self.batches = self.shares = False
        self.layers = self.bytes_per_token = 0

    @property
    def device(self) -> torch.device:
        """Where the ids have to be."""
        device: torch.device = self.model.device
        return device

    def try_out(self) -> None:
        """Find out once whether rows can be batched, and prefixes shared."""
        if self._tried:
            return
        self._tried = True
        if self.is_encoder_decoder or not self.has_cache:
            return
        if _rotates_by_length(self.model.config.to_dict()):
            return
        layers = DynamicCache(config=self.model.config).layers
        if not layers or any(
            type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
        ):
            return
        self.layers = len(layers)
        self.batches = self._agrees(None)
        if self.batches:
            self.shares = not any(
                isinstance(layer, DynamicSlidingWindowLayer) for layer in layers
            ) and self._agrees(1)

    def _agrees(self, shared: int | None) -> bool:
        """Compare a batch of two rows, the shorter one padded, with the rows alone."""
        ids = [1, 2, 1, 3, 2]
        try:
            held = KeyValues(self.layers, len(ids))
            every = self._run(held, ids, last_only=False)
            self.bytes_per_token = held.nbytes // len(ids)
            batch = Batch(self.layers, self.device)
            trunk = Trunk(shared, held.segment(0, shared)) if shared else None
            for length, with_trunk in ((4, trunk), (2, trunk), (3, None)):
                held.window.end = length
                batch.join(held, with_trunk)
            got = self.decode(batch, [ids[4], ids[2], ids[3]])
        except Exception as error:  # noqa: BLE001  models refuse a cache in ways of their own
            # A model that needs its own cache, or treats its keys in its own way.
            _log.info("rows run apart, or share no prefixes: %r", error)
            return False
        want = every[[4, 2, 3]].float()
        off = float((got.float() - want).square().mean().sqrt() / want.std())
        if not off <= (_EXACT if self._is_exact() else _ROUNDED):
            _log.info("rows run apart, or share no prefixes: logits are off by %.3g", off)
            return False
        return True

    def _is_exact(self) -> bool:
        """Whether the model computes in float32 or better throughout."""
        return all(p.dtype in (torch.float32, torch.float64) for p in self.model.parameters()) and (
            not any("quant" in type(module).__module__ for module in self.model.modules())
        )

    def _run(self, held: KeyValues, ids: list[int], *, last_only: bool = True) -> torch.Tensor:
        at = held.window.end
        positions = torch.arange(at, at + len(ids), device=self.device)[None]
        out = self.model(
            input_ids=self._tensor(ids),
            position_ids=positions,
            past_key_values=held.cache,
            use_cache=True,
            **(self._last_only if last_only else {}),
        )
        held.window.end += len(ids)
        logits: torch.Tensor = out.logits[0]
        return logits

    def prefill(self, held: KeyValues, ids: list[int]) -> torch.Tensor:
        """Append ids to a row.

        Args:
            held: The row's cache, with room for them.
            ids: The ids.

        Returns:
            Logits of the last one, shape (vocabulary,).
        """
        return self._run(held, ids)[-1]

    def decode(self, batch: Batch, tokens: list[int]) -> torch.Tensor:
        """Append one token to every row of a batch.

        Args:
            batch: The rows' cache.
            tokens: One id per row.

        Returns:
            Logits, shape (rows, vocabulary).
        """
        ids = torch.tensor(tokens, device=self.device)[:, None]
        out = self.model(input_ids=ids, **batch.begin_step())
        batch.end_step()
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def check(self, batch: Batch, ids: list[int]) -> torch.Tensor:
        """Run several tokens of a batch's only row, without counting them yet.

        Args:
            batch: The row's cache; `Batch.end_step` then says how many are kept.
            ids: The row's last token and guesses of those that follow.

        Returns:
            Logits after each of them, shape (ids, vocabulary).
        """
        out = self.model(input_ids=self._tensor(ids), **batch.begin_step(len(ids)))
        logits: torch.Tensor = out.logits[0]
        return logits

    def begin_apart(self, row: Row) -> Apart:
        """Set up a row that runs by itself: its cache, and its encoder's output.

        Args:
            row: The row.

        Returns:
            Its state, with the ids to feed first.
        """
        config = self.model.config
        if not self.is_encoder_decoder:
            if not self.has_cache:
                return Apart({}, seen=[], pending=row.ids)
            own = {"past_key_values": DynamicCache(config=config), "use_cache": True}
            return Apart(own, pending=row.ids)
        cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        encoded = self.model.get_encoder()(self._tensor(row.request.prompt))
        start = self.model.generation_config.decoder_start_token_id
        if start is None:
            start = config.decoder_start_token_id
        arguments = {"past_key_values": cache, "encoder_outputs": encoded, "use_cache": True}
        return Apart(arguments, pending=[start, *row.request.prefill])

    def step_apart(self, state: Apart) -> torch.Tensor:
        """Feed a row's pending ids.

        Args:
            state: The row's state.

        Returns:
            Logits of the last one, shape (vocabulary,).
        """
        ids = state.pending
        if state.seen is not None:
            state.seen.extend(ids)
            ids = state.seen
        name = "decoder_input_ids" if self.is_encoder_decoder else "input_ids"
        logits: torch.Tensor = self.model(
            **{name: self._tensor(ids)}, **state.arguments, **self._last_only
        ).logits[0, -1]
        return logits

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.device)


def _rotates_by_length(config: Any) -> bool:
    """Whether positions are encoded by the longest row of a batch: a neighbour would show."""
    if not isinstance(config, dict):
        return False
    kind = config.get("rope_type", config.get("type"))
    return kind in ("longrope", "dynamic") or any(map(_rotates_by_length, config.values()))
