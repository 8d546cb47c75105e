"""Prefilling one request at a time, starting from what is already known of its ids.

In bfloat16 and int8, logits depend a little on how many ids a pass has. A repeated prompt must get
the same ones. So its last id never comes from a cache. It goes through the model in a pass of its
own, whether the rest was known or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from langchain_gkt.students.engine.kv.kv_cache import KVCache, part_of
from langchain_gkt.students.engine.kv.prefix_cache import PrefixCache, SharedNodes, common_length
from langchain_gkt.students.engine.model_runner import ModelRunner
from langchain_gkt.students.engine.prefill_handle import PrefillHandle

# Spare columns for the next request, which may be longer.
_SPARE_COLUMNS = 128


@dataclass(frozen=True, eq=False)
class PrefillState:
    """Ids that are being prefilled."""

    ids: list[int]
    reusable: int  # how many of them, from the first on, a cache may hold
    cache: KVCache  # their keys and values so far
    shared_nodes: SharedNodes  # their front that other prompts begin with too

    @property
    def complete(self) -> bool:
        """Whether all ids are in the cache."""
        return self.cache.window.end >= len(self.ids)


class Prefiller:
    """Prefills requests one after the other, in one buffer."""

    def __init__(self, model_runner: ModelRunner, prefix_cache: PrefixCache) -> None:
        """Start without a buffer."""
        self._model_runner, self._prefix_cache = model_runner, prefix_cache
        self._buffer: KVCache | None = None
        self._buffered_ids: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self._buffer.nbytes if self._buffer is not None else 0

    def free(self) -> None:
        """Free the buffer."""
        self._buffer, self._buffered_ids = None, []

    def start(self, ids: list[int], prompt: int) -> PrefillState:
        """Load what is known of some ids. This overwrites the ids that were started before.

        The first ``prompt`` of them are the prompt. A begun answer follows.
        """
        # The caller needs the last id's logits, so that id never comes from a cache.
        reusable = len(ids) if self._model_runner.is_exact else prompt - 1
        limit = max(0, min(reusable, len(ids) - 1))
        match = self._prefix_cache.match(ids[: limit + 1])
        cache = self._buffer
        if cache is None or cache.window.columns < len(ids):
            cache = self._buffer = self._model_runner.new_cache(len(ids) + _SPARE_COLUMNS)
            self._buffered_ids = []
        # Prompts in a row often begin alike. That part is in the buffer already.
        reuse = self._prefix_cache.max_bytes > 0
        known = common_length(self._buffered_ids, ids[:limit]) if reuse else 0
        cache.window.end = known
        position = 0
        for segment in match.segments:
            skip, position = max(0, known - position), position + segment[0][0].shape[1]
            if position > known:
                cache.load(part_of(segment, skip))
        self._buffered_ids = ids[: cache.window.end]
        return PrefillState(ids, reusable, cache, match.shared_nodes)

    def advance(
        self, state: PrefillState, max_tokens: int, *, split: bool = False
    ) -> tuple[int, torch.Tensor]:
        """Prefill the next ids, at most ``max_tokens``, and with ``split`` only the reusable ones.

        Returns:
            How many were prefilled, and the last one's logits, shape (vocabulary,).
        """
        start, end = state.cache.window.end, len(state.ids)
        if split and start < state.reusable:
            end = state.reusable
        chunk = state.ids[start : min(end, start + max_tokens)]
        logits = self._model_runner.prefill(state.cache, chunk)
        self._buffered_ids = state.ids[: min(state.cache.window.end, state.reusable)]
        return len(chunk), logits

    def advance_ahead(self, ahead: PrefillHandle, max_tokens: int) -> None:
        """Prefill the next ids of a prompt into the prefix cache, at most ``max_tokens``."""
        # In low precision the last id is prefilled with its request.
        ids = ahead.ids if self._model_runner.is_exact else ahead.ids[:-1]
        size = len(ids) * self._model_runner.bytes_per_token
        if not ids or not self._model_runner.can_batch or size > self._prefix_cache.max_bytes:
            ahead.finish()  # no room to keep it until its request comes
            return
        try:
            state = self.start(ahead.ids, len(ahead.ids))
            self.advance(state, max_tokens, split=True)
            known = ids[: state.cache.window.end]
            self._prefix_cache.insert(known, state.cache, ahead=True)
            if len(known) == len(ids):
                ahead.finish()
        except BaseException:  # noqa: BLE001  its request will meet the same error, and report it
            ahead.finish()
