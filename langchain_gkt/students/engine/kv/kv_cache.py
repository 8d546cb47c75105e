"""The KV cache of a batch: buffers to which rows are added and removed between steps.

Rows are aligned at the right: every row's newest token is in the same column, so that a step
writes one column. Columns before a row's first token are masked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from langchain_gkt.students.engine.kv.shared_prefix import Group, SharedPrefix, SharedPrefixKeys

Segment = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of a run of tokens. Per layer, shape (heads, tokens, head size)."""

# Spare columns of a buffer. It is moved or grown only once per this many steps.
_SLACK = 128


@dataclass
class Window:
    """The size of the buffers and the part that is in use, the same for every layer."""

    slots: int  # how many rows there is room for
    columns: int  # and how many tokens of each
    rows: int
    start: int = 0  # the first column in use
    end: int = 0  # the column after the last one
    fold_heads: bool = False  # attention of single tokens is computed in groups of query heads
    shared_prefixes: list[Group] = field(default_factory=list)  # held once, each with its rows


class BufferLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, written in place."""

    is_sliding = False  # all tokens are kept. The model's own mask applies the sliding window

    def __init__(self, index: int, window: Window) -> None:
        """Prepare. The first keys show the shape, and then the buffers are made."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.index, self.window = index, window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers in the shape of the first keys and values."""
        # Zeros, because what is masked must still be a number: see clear_row.
        rows, columns = self.window.slots, self.window.columns
        self.keys, self.values = (
            states.new_zeros(rows, states.shape[1], columns, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns and return all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        window = self.window
        end = window.end + key_states.shape[-2]
        self.keys[: window.rows, :, window.end : end] = key_states
        self.values[: window.rows, :, window.end : end] = value_states
        keys = self.keys[: window.rows, :, window.start : end]
        if window.shared_prefixes or (window.fold_heads and key_states.shape[-2] == 1):
            keys = SharedPrefixKeys.wrap(keys, window.shared_prefixes, self.index)
        return keys, self.values[: window.rows, :, window.start : end]

    def write(self, row: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copy keys and values of one row, each of shape (heads, tokens, head size)."""
        if not self.is_initialized:
            self.lazy_initialization(keys[None], values[None])
        assert self.keys is not None and self.values is not None
        end = start + keys.shape[1]
        self.keys[row, :, start:end] = keys
        self.values[row, :, start:end] = values

    @property
    def buffers(self) -> list[torch.Tensor]:
        """The keys and the values. None before the first keys."""
        return [tensor for tensor in (self.keys, self.values) if tensor is not None]

    def get_seq_length(self) -> int:
        """Return how many columns are in use."""
        return self.window.end - self.window.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length of the mask, and its offset."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1, for no limit: the owner makes room."""
        return -1


class KVCache:
    """The KV cache of one row, while its ids are being prefilled."""

    def __init__(self, layers: int, columns: int, *, fold_heads: bool = False) -> None:
        """Have room for ``columns`` tokens."""
        self.window = Window(slots=1, columns=columns, rows=1, fold_heads=fold_heads)
        self.layers = [BufferLayer(i, self.window) for i in range(layers)]
        self.cache = Cache(layers=list(self.layers))

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.buffers)

    def load(self, segment: Segment) -> None:
        """Append a run of tokens that was computed before."""
        for layer, (keys, values) in zip(self.layers, segment, strict=True):
            layer.write(0, self.window.end, keys, values)
        self.window.end += segment[0][0].shape[1]

    def segment(self, start: int, end: int) -> Segment:
        """Return views of the first row's tokens from start to end."""
        return [
            (layer.keys[0, :, start:end], layer.values[0, :, start:end])
            for layer in self.layers
            if layer.keys is not None and layer.values is not None
        ]


class BatchKVCache(KVCache):
    """The KV cache of all rows that decode together."""

    def __init__(self, layers: int, device: torch.device, *, fold_heads: bool = False) -> None:
        """Start without rows and without memory."""
        super().__init__(layers, columns=0, fold_heads=fold_heads)
        self.window.slots = self.window.rows = 0
        self._device = device
        self._starts: list[int] = []
        self._prefixes: list[SharedPrefix | None] = []
        self._mask: torch.Tensor | None = None
        self._positions = torch.zeros(0, 1, dtype=torch.long, device=device)

    def add(
        self, row: KVCache, shared_prefix: SharedPrefix | None = None, *, expected: int = 1
    ) -> None:
        """Add a row.

        Args:
            row: Its keys and values, from its first token on.
            shared_prefix: The part of them that other rows share, and that is not copied.
            expected: Rows there will soon be. Room is made for all of them at once.
        """
        window = self.window
        skip = shared_prefix.length if shared_prefix else 0
        width = row.window.end - skip
        if not window.rows:
            window.start = window.end = min(width, window.columns)
        if window.rows == window.slots or window.end < width:
            longest = max(width, window.end - window.start if window.rows else 0)
            slots = max(expected, window.rows + 1)
            self._move(slots, longest + _SLACK, longest)
        start = window.end - width
        for layer, (keys, values) in zip(
            self.layers, row.segment(skip, row.window.end), strict=True
        ):
            layer.write(window.rows, start, keys, values)
        window.rows += 1
        self._starts.append(start)
        self._prefixes.append(shared_prefix)
        self._rows_changed()

    def remove(self, slot: int) -> None:
        """Remove a row. The last one takes its slot."""
        window = self.window
        last = window.rows - 1
        if slot != last:
            used = slice(self._starts[last], window.end)
            for layer in self.layers:
                for tensor in layer.buffers:
                    tensor[slot, :, used] = tensor[last, :, used]
        columns: tuple[list[Any], ...] = (self._starts, self._prefixes)
        for column in columns:
            column[slot] = column[last]
            column.pop()
        window.rows = last
        self._rows_changed()

    def clear_row(self, slot: int) -> None:
        """Zero a row that is about to be removed, because its keys and values are not numbers."""
        # The next row may use this slot. A masked value counts 0 times, and 0 times NaN is NaN.
        for layer in self.layers:
            for tensor in layer.buffers:
                tensor[slot] = 0

    def begin_step(self) -> dict[str, torch.Tensor]:
        """Make room for one more token per row. Return the model's further arguments."""
        window = self.window
        if window.end == window.columns:
            width = window.end - window.start
            # Only for the rows that are left. Unused slots would grow with the others.
            self._move(window.rows, width + _SLACK + width // 8, width)
        arguments = {"position_ids": self._positions}
        if self._mask is not None:
            arguments["attention_mask"] = self._mask[:, window.start : window.end + 1]
        return arguments

    def end_step(self) -> None:
        """Count the token that the model has written for every row."""
        self.window.end += 1
        # Not in place, because the model may have kept a view.
        self._positions = self._positions + 1

    def _move(self, slots: int, columns: int, end: int) -> None:
        """Move what is in use to new buffers, so that it ends in column ``end``."""
        window, before = self.window, self.window.start
        width = window.end - before
        window.slots, window.columns = slots, columns
        for layer in self.layers:
            if old := layer.buffers:
                layer.lazy_initialization(*old)
            for new, was in zip(layer.buffers, old, strict=True):
                used = was[: window.rows, :, before : window.end]
                new[: window.rows, :, end - width : end] = used
        window.start, window.end = end - width, end
        self._starts = [start + window.start - before for start in self._starts]
        self._rows_changed()

    def _rows_changed(self) -> None:
        """Compute what stays the same at every step until a row is added or removed."""
        window = self.window
        window.shared_prefixes = []
        if not window.rows:
            return  # a first row is about to be added
        window.start = min(self._starts)
        skipped = [prefix.length if prefix else 0 for prefix in self._prefixes]
        lengths = [
            [window.end - start + skip] for start, skip in zip(self._starts, skipped, strict=True)
        ]
        self._positions = torch.tensor(lengths, device=self._device)
        starts = torch.tensor([[start] for start in self._starts], device=self._device)
        columns = torch.arange(window.columns, device=self._device)[None]
        # Without padding the model needs no mask, and is faster.
        uneven = min(self._starts) != max(self._starts)
        self._mask = columns >= starts if uneven else None
        for prefix in dict.fromkeys(self._prefixes):
            if prefix is None:
                continue
            which = [i for i, other in enumerate(self._prefixes) if other is prefix]
            all_rows = len(which) == window.rows
            rows = None if all_rows else torch.tensor(which, device=self._device)
            window.shared_prefixes.append((rows, prefix))


def part_of(segment: Segment, start: int, end: int | None = None) -> Segment:
    """Return views of a run's tokens from start to end."""
    return [(keys[:, start:end], values[:, start:end]) for keys, values in segment]
