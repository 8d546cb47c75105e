"""Makes a budget admit each attempt of a teacher with retries or fallbacks, not only the first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig

from langchain_gkt.errors import BudgetExceeded


class _AttemptRefused(BaseException):
    """Ends a call at once. Retries and fallbacks would handle an Exception as a failure."""

    def __init__(self, error: BudgetExceeded) -> None:
        super().__init__(str(error))
        self.error = error


class AttemptGate:
    """Admits the attempts of one call. The first was admitted before the call began."""

    def __init__(self, admit: Callable[[], None]) -> None:
        """Let one attempt through.

        Args:
            admit: Reserves the maximum cost of an attempt. Raises `BudgetExceeded`.
        """
        self._admit = admit
        self._lock = threading.Lock()
        self._attempts = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> AttemptGate:
        """Return this very gate, because models may be deep-copied with their wrappers."""
        return self

    def attempt(self) -> None:
        """Begin an attempt. A refused one ends the call. See `raising_refusals`."""
        with self._lock:
            self._attempts += 1
            is_first = self._attempts == 1
        if is_first:
            return
        try:
            self._admit()
        except BudgetExceeded as error:
            raise _AttemptRefused(error) from None


class GatedModel(RunnableBinding[Any, Any]):
    """A chat model inside retries or fallbacks, asked only if a gate admits the attempt.

    Attributes:
        gate: The gate of the call.
    """

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


def gated(model: Runnable[Any, Any], gate: AttemptGate | None) -> Runnable[Any, Any]:
    """Put a gate before a model.

    Args:
        model: A chat model, with its call's arguments bound or not.
        gate: The gate. None for no gate.

    Returns:
        The model to call instead.
    """
    return model if gate is None else GatedModel(bound=model, gate=gate)


@contextmanager
def raising_refusals() -> Iterator[None]:
    """Run a teacher. If a budget refuses an attempt, raise that error itself.

    Raises:
        BudgetExceeded: If an attempt after the first could pass the budget.
    """
    try:
        yield
    except _AttemptRefused as refused:
        raise refused.error from None
