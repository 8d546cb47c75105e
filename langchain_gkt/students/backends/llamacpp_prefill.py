"""A prompt that llama.cpp prefills ahead of its request."""

from __future__ import annotations

from threading import Event


class PromptPrefill:
    """A prompt that is being prefilled ahead of its request; a context manager that closes."""

    def __init__(self, ids: list[int], unfinished: list[PromptPrefill]) -> None:
        """Enter a prompt.

        Args:
            ids: Ids of the prompt.
            unfinished: The engine's, of which it is one until it is finished.
        """
        self.ids, self.closed = ids, False
        self.claimed, self._finished = Event(), Event()
        self._unfinished = unfinished
        unfinished.append(self)

    @property
    def done(self) -> bool:
        """Whether nothing is left to prefill."""
        return self._finished.is_set()

    def wait(self) -> None:
        """Wait until nothing is left to prefill."""
        self._finished.wait()

    def finish(self) -> None:
        """Say that nothing is left to prefill."""
        if self in self._unfinished:
            self._unfinished.remove(self)
        self._finished.set()

    def close(self) -> None:
        """Stop, unless the request with this prompt has come; llama.cpp frees slots itself."""
        if not self.claimed.is_set():
            self.closed = True

    def __enter__(self) -> PromptPrefill:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()
