"""CallObserver: reports of a chain call to the handlers that count and limit its costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from langchain_core.messages import BaseMessage


class BreakerState(Protocol):
    """The part of a circuit breaker that a report needs."""

    def to_dict(self) -> dict[str, Any]:
        """Return its state as plain values."""


class CallObserver:
    """Base class of callback handlers for events that LangChain does not have.

    A handler that inherits from it overrides the events it needs. By default it ignores all and
    refuses nothing. `CostTracker` is one.
    """

    def admit_teacher(
        self,
        models: Sequence[Any],
        messages: Sequence[BaseMessage],
        *,
        call_id: str,
        compared: bool,
        limit: int | None,
        root: UUID | None = None,
    ) -> None:
        """Admit a teacher call, or refuse it before it costs anything.

        Args:
            models: The chat models that the call may reach.
            messages: The prompt.
            call_id: The chain call it belongs to.
            compared: Whether the call counts for the estimate of the teacher alone.
            limit: Maximum completion tokens of the call. None if it has no limit.
            root: The chain's run. None if the teacher is asked outside of one.

        Raises:
            BudgetExceeded: If the call could pass a budget.
        """

    def add_breaker(self, models: Sequence[Any], breaker: BreakerState) -> None:
        """Take note of the circuit breaker that guards a teacher's models, the main one first."""

    def end_run(
        self, run_id: UUID, response: Any, error: BaseException | None = None
    ) -> Mapping[str, float] | None:
        """Count a model's run that ends now, and return its cost.

        Args:
            run_id: The run.
            response: The result. A partial one, or None, after an error.
            error: The error that ended it early, or None.

        Returns:
            ``input_cost``, ``output_cost`` and ``total_cost`` in US dollars, as LangSmith reads
            them in usage metadata. None if they are unknown.
        """
        return None


def observers_in(handlers: Iterable[object]) -> list[CallObserver]:
    """Return the handlers of a run that are call observers, in their order."""
    return [handler for handler in handlers if isinstance(handler, CallObserver)]
