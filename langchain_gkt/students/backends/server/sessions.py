"""Which conversation a prompt belongs to, for a router in front of several replicas."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence

_LONGEST_HEADER = 8
"""Tokens. A header may hold an empty reasoning, which later turns leave out."""
_MOST_SESSIONS = 10_000


class Sessions:
    """Gives all prompts of one conversation the same key. Usable from any thread."""

    def __init__(self, end_ids: Collection[int]) -> None:
        """Start without conversations. The ids are those that end a message."""
        self._end_ids, self._lock = end_ids, threading.Lock()
        self._known: OrderedDict[int, str] = OrderedDict()

    def key_of(self, prompt: Sequence[int]) -> str:
        """Return the key of the longest known prompt that this one continues, or a new one."""
        digests = list(_digests(prompt))
        with self._lock:
            known = (self._known[one] for one in reversed(digests) if one in self._known)
            key = next(known, None) or hashlib.sha256(repr(prompt).encode()).hexdigest()[:32]
            if digests:
                own = digests[self._without_header(prompt) - 1]
                self._known[own] = key
                self._known.move_to_end(own)
            if len(self._known) > _MOST_SESSIONS:
                self._known.popitem(last=False)
        return key

    def _without_header(self, prompt: Sequence[int]) -> int:
        """Return the length of a prompt without the header of the answer, if its end is known."""
        shortest = max(0, len(prompt) - 1 - _LONGEST_HEADER)
        for position in range(len(prompt) - 1, shortest - 1, -1):
            if prompt[position] in self._end_ids:
                return position + 1
        return len(prompt)


def _digests(prompt: Sequence[int]) -> Iterator[int]:
    """Yield a digest of each beginning of a prompt."""
    digest = 0
    for token in prompt:
        digest = hash((digest, token))
        yield digest
