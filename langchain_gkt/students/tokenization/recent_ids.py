"""The ids of recent prompts, bounded by their size. No text is kept."""

from __future__ import annotations

import hashlib
import secrets
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable

_MOST_BYTES = 2**20
_ENTRY_BYTES = 256  # key, array and dictionary slot


class RecentIds:
    """Remembers the ids of prompts that one call needs more than once."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        """Start empty. A prompt of more bytes than may be kept in all is not kept."""
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[bytes, array[int]] = OrderedDict()
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(16)  # else a guessed text could be looked up

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def get(self, text: str, make: Callable[[], list[int]]) -> list[int]:
        """Return the ids for a text, which is all that they depend on. Make them if need be."""
        key = hashlib.blake2b(text.encode(), key=self._secret).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].tolist()
        ids = make()
        kept = array("I", ids)
        if (size := _size(kept)) > self._most_bytes:
            return ids
        with self._lock:
            if key not in self._kept:
                self._kept[key], self._bytes = kept, self._bytes + size
            while self._bytes > self._most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= _size(oldest)
        return ids


def _size(ids: array[int]) -> int:
    return ids.itemsize * len(ids) + _ENTRY_BYTES
