"""Makes a budget admit each attempt of a teacher with retries or fallbacks, not only the first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableBinding, RunnableConfig

from langchain_gkt.errors import BudgetExceeded


class _AttemptRefused(BaseException):
    """Ends a call at once. Retries and fallbacks would handle an Exception as a failure."""

    def __init__(self, error: BudgetExceeded) -> None:
        super().__init__(str(error))
        self.error = error


class AttemptGate:
    """Admits the attempts of one call. The first was admitted before the call began."""

    def __init__(self, admit: Callable[[], None]) -> None:
        """Take a function that reserves an attempt's maximum cost, or raises `BudgetExceeded`."""
        self._admit = admit
        self._earlier = itertools.count()  # its next() is safe among threads

    def __deepcopy__(self, memo: dict[int, Any]) -> AttemptGate:
        """Return this very gate, because models may be deep-copied with their wrappers."""
        return self

    def attempt(self) -> None:
        """Begin an attempt. A refused one ends the call. See `raising_refusals`."""
        if next(self._earlier) == 0:
            return
        try:
            self._admit()
        except BudgetExceeded as error:
            raise _AttemptRefused(error) from None


class GatedModel(RunnableBinding[Any, Any]):
    """A chat model inside retries or fallbacks, asked only if a gate admits the attempt."""

    gate: Any  # an AttemptGate. Pydantic would copy what it validates

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Any:
        """Ask the model if the attempt is admitted."""
        self.gate.attempt()
        return super().invoke(input, config, **kwargs)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Any:
        """Do what ``invoke`` does, on the event loop."""
        self.gate.attempt()
        return await super().ainvoke(input, config, **kwargs)


@contextmanager
def raising_refusals() -> Iterator[None]:
    """Run a teacher. If a budget refuses an attempt after the first, raise `BudgetExceeded`."""
    try:
        yield
    except _AttemptRefused as refused:
        raise refused.error from None
