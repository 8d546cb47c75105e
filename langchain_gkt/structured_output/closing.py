"""The token that ends a JSON text soonest: a fixed order of preference over a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class ClosingOrder:
    """Orders the tokens of one vocabulary by how soon they bring a JSON text to its end."""

    def __init__(self, tokens: Any, end_ids: set[int], size: int) -> None:
        """Order the first ``size`` tokens of an ``LLTokenizer``. Some ids end an answer."""
        data = [tokens.decode_bytes([token]) for token in range(size)]
        special = [tokens.is_special_token(token) for token in range(size)]
        ranks = [
            (-1, 0) if token in end_ids else _rank(b"" if special[token] else data[token])
            for token in range(size)
        ]
        order = sorted(range(size), key=ranks.__getitem__)
        self._place = np.empty(size, dtype=np.int64)
        self._place[order] = np.arange(size)
        self._brackets = [data.index(mark) for mark in (b"}", b"]") if mark in data]
        self._quotes = [token for token in order if data[token][:1] == b'"']

    def first(self, allowed: npt.NDArray[np.bool_]) -> int:
        """Return the token that comes first in the order, of those allowed. There must be one."""
        # If both brackets may come next, the text is inside a string, which only a quote closes.
        if all(allowed[token] for token in self._brackets):
            for token in self._quotes:
                if allowed[token]:
                    return token
        candidates = np.flatnonzero(allowed)
        return int(candidates[self._place[candidates].argmin()])


def _rank(data: bytes) -> tuple[int, int]:
    """Return a sort key for the bytes of a token. The smallest closes most."""
    if not data or data.isspace():
        return (6, 0)
    if not data.strip(b'"}]'):
        return (0 if data[:1] in b"}]" else 1, -len(data))
    # A comma comes first only where nothing may be closed yet. It ends a number.
    if data == b"," or not data.strip(b'"}]:'):
        return (2, -len(data))
    # Any other opens one more item. Repeated where it may be left out, it has no end.
    if b"{" in data or b"[" in data or b"," in data:
        return (5, len(data))
    # Text that the schema prescribes: names of properties, values of an enum.
    return (4 if data[:1].isspace() else 3, -len(data))
