"""Prefilling one row at a time, from what is already known of its ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from langchain_gkt.students.engine.kv_cache import KeyValues
from langchain_gkt.students.engine.model_runner import Forward
from langchain_gkt.students.engine.prefix_cache import PrefixCache, common

# Columns to spare for a longer row after this one.
_ROOM = 128


@dataclass(eq=False)
class Ahead:
    """A prompt that is prefilled before its request comes.

    Attributes:
        ids: The prompt.
        done: Whether nothing is left to prefill.
        taken: Whether its request has come, or never will.
    """

    ids: list[int]
    done: bool = False
    taken: bool = False


@dataclass(frozen=True, eq=False)
class Filling:
    """A row that is being prefilled.

    Attributes:
        ids: What is to be prefilled.
        held: Its keys and values so far.
        shared: The part of them that other prompts begin with too, for `PrefixCache.trunk`.
    """

    ids: list[int]
    held: KeyValues
    shared: tuple[Any, ...]

    @property
    def complete(self) -> bool:
        """Whether all ids are in the cache."""
        return self.held.window.end >= len(self.ids)


class Filler:
    """Prefills rows in one buffer, one row after the other."""

    def __init__(self, forward: Forward, prefixes: PrefixCache) -> None:
        """Begin without a buffer.

        Args:
            forward: The model.
            prefixes: What is known of earlier prompts.
        """
        self._forward, self._prefixes = forward, prefixes
        self._buffer: KeyValues | None = None
        self._ids: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self._buffer.nbytes if self._buffer is not None else 0

    def free(self) -> None:
        """Let go of the buffer."""
        self._buffer, self._ids = None, []

    def begin(self, ids: list[int]) -> Filling:
        """Load what is known of some ids. The row begun before must have joined or left.

        Args:
            ids: What is to be prefilled.

        Returns:
            The row, for `feed`.
        """
        match = self._prefixes.match(ids)
        held = self._buffer
        if held is None or held.columns < len(ids):
            held = self._buffer = KeyValues(self._forward.layers, len(ids) + _ROOM)
            self._ids = []
        # The row before often began alike: then that part is in the buffer already.
        known = common(self._ids, ids[:-1]) if self._prefixes.max_bytes else 0
        held.window.end = known
        at = 0
        for segment in match.segments:
            skip, at = max(0, known - at), at + segment[0][0].shape[1]
            if at > known:
                held.load([(keys[:, skip:], values[:, skip:]) for keys, values in segment])
        self._ids = ids[: held.window.end]
        return Filling(ids, held, match.shared if self._forward.shares else ())

    def feed(self, filling: Filling, most: int) -> tuple[int, torch.Tensor]:
        """Prefill the next ids of a row.

        Args:
            filling: The row.
            most: How many ids, at most.

        Returns:
            How many it were, and the last one's logits, shape (vocabulary,).
        """
        chunk = filling.ids[filling.held.window.end :][:most]
        logits = self._forward.prefill(filling.held, chunk)
        self._ids = filling.ids[: filling.held.window.end]
        return len(chunk), logits

    def work_ahead(self, ahead: Ahead, most: int) -> None:
        """Prefill the next ids of a prompt into the prefix cache.

        Args:
            ahead: The prompt.
            most: How many ids, at most.
        """
        size = len(ahead.ids) * self._forward.bytes_per_token
        if not self._forward.batches or size > self._prefixes.max_bytes:
            ahead.done = True  # it could not be kept until its request comes
            return
        try:
            filling = self.begin(ahead.ids)
            self.feed(filling, most)
            known = ahead.ids[: filling.held.window.end]
            self._prefixes.insert(known, filling.held, ahead=True)
            ahead.done = filling.complete
        except Exception:  # noqa: BLE001  its request will meet the same, and say so
            ahead.done = True
