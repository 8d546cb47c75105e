"""A prompt that an engine prefills ahead of its request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event

PREFILL_DELAY_SECONDS = 0.05
"""How long llama.cpp and OpenVINO wait before they prefill ahead. Guidance that comes sooner (from
a cache, say) is cheaper to read with its prompt.
"""


class PrefillHandle(AbstractContextManager["PrefillHandle"]):
    """A prompt that is being prefilled ahead of its request. A context manager that closes.

    Safe to use from any thread.

    Attributes:
        ids: Ids of the prompt.
        due: When to begin, as `time.monotonic` counts. 0 for at once.
        claimed: Set once its request has come, or never will.
    """

    def __init__(
        self,
        ids: list[int],
        on_close: Callable[[PrefillHandle], None] | None = None,
        *,
        due: float = 0.0,
        useless: bool = False,
    ) -> None:
        """Describe a prompt. The engine does the work.

        Args:
            ids: Ids of the prompt.
            on_close: Called once if its request will not come. Frees the KV cache.
            due: When to begin, as `time.monotonic` counts.
            useless: Whether there is nothing to prefill, because the engine could not keep it.
        """
        self.ids, self.due, self.claimed = ids, due, Event()
        self._on_close, self._finished = on_close, Event()
        if useless:
            self.claimed.set()
            self._finished.set()

    @property
    def done(self) -> bool:
        """Whether nothing is left to prefill."""
        return self._finished.is_set()

    def finish(self) -> None:
        """Note that nothing is left to prefill. The engine calls this."""
        self._finished.set()

    def wait(self) -> None:
        """Wait until nothing is left to prefill."""
        self._finished.wait()

    def close(self) -> None:
        """Stop, and free the KV cache unless a request uses it."""
        if not self.claimed.is_set() and self._on_close is not None:
            self._on_close(self)

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()
