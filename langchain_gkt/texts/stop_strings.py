"""Stop strings: strings that end an answer and do not appear in it."""

from __future__ import annotations

from collections.abc import Sequence


def find_stop(text: str, stop: Sequence[str] | None) -> int | None:
    """Return where the first stop string of a text begins, or None. Empty ones are ignored."""
    return min((text.find(end) for end in stop or () if end and end in text), default=None)


def before_stop(text: str, stop: Sequence[str] | None) -> str:
    """Return the part of a growing text that certainly comes before a stop string.

    If there is none in it, this is the text without an ending that may grow into one.
    """
    if (position := find_stop(text, stop)) is not None:
        return text[:position]
    beginnings = (end[:size] for end in stop or () for size in range(1, len(end)))
    return text[: len(text) - max((len(b) for b in beginnings if text.endswith(b)), default=0)]


class StopStringFilter:
    """Lets text through up to the first stop string, wherever its tokens are split."""

    def __init__(self, stop: Sequence[str]) -> None:
        """Start with no text held back. Empty stop strings are ignored."""
        self._stop = tuple(filter(None, stop))
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Take new text. Return what can be shown, and whether a stop string was reached."""
        if not self._stop:  # the usual case, once a token
            return text, False
        self._held += text
        shown = before_stop(self._held, self._stop)
        stopped = find_stop(self._held, self._stop) is not None
        self._held = self._held[len(shown) :]
        return shown, stopped

    def flush(self) -> str:
        """Return the held-back text, when no stop string came."""
        return self._held
