"""track_costs: counts everything inside a with block, however it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from langchain_gkt.costs.budget import Budget
from langchain_gkt.costs.observer import CallObserver
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.costs.tracker import CostTracker


def _to_all(name: str) -> Callable[..., None]:
    def forward(self: _FanOut, *args: Any, **kwargs: Any) -> None:
        for tracker in self.trackers:
            getattr(tracker, name)(*args, **kwargs)

    return forward


class _FanOut(BaseCallbackHandler, CallObserver):
    """The one handler of a context. It feeds every tracker whose block encloses the call."""

    run_inline = True
    gkt_children = True

    def __init__(self, trackers: tuple[CostTracker, ...]) -> None:
        self.trackers = trackers

    on_chain_start = _to_all("on_chain_start")
    on_chain_end = _to_all("on_chain_end")
    on_chain_error = _to_all("on_chain_error")
    on_chat_model_start = _to_all("on_chat_model_start")
    on_llm_new_token = _to_all("on_llm_new_token")
    on_llm_end = _to_all("on_llm_end")
    on_llm_error = _to_all("on_llm_error")
    admit_teacher = _to_all("admit_teacher")
    add_breaker = _to_all("add_breaker")

    def end_run(self, *args: Any, **kwargs: Any) -> Mapping[str, float] | None:
        """Let every tracker count a finished run. The innermost that knows a price returns it."""
        costs = [tracker.end_run(*args, **kwargs) for tracker in self.trackers]
        return next((cost for cost in reversed(costs) if cost is not None), None)


_active: ContextVar[_FanOut | None] = ContextVar("langchain_gkt_costs", default=None)
register_configure_hook(_active, inheritable=True)


@contextmanager
def track_costs(
    *,
    teacher_price: Prices = None,
    student_price: Prices | MachineTime = None,
    budget: Budget | None = None,
    teacher_tokenizer: Callable[[str], int] | None = None,
    keep_calls: bool = False,
    tier: str | None = None,
    scenario: BillingScenario | None = None,
) -> Iterator[CostTracker]:
    """Count what guided calls inside the block use and cost. Blocks nest.

    Args:
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        budget: As for `CostTracker`.
        teacher_tokenizer: As for `CostTracker`.
        keep_calls: As for `CostTracker`.
        tier: As for `CostTracker`.
        scenario: As for `CostTracker`.

    Yields:
        The tracker. Ask it for a ``report()``.
    """
    tracker = CostTracker(
        teacher_price=teacher_price,
        student_price=student_price,
        budget=budget,
        teacher_tokenizer=teacher_tokenizer,
        keep_calls=keep_calls,
        tier=tier,
        scenario=scenario,
    )
    outer = _active.get()
    token = _active.set(_FanOut((*(outer.trackers if outer else ()), tracker)))
    try:
        yield tracker
    finally:
        try:
            _active.reset(token)
        except ValueError:  # closed in another context, as a generator fixture may be
            inner = _active.get()
            if inner is not None and tracker in inner.trackers:
                left = tuple(other for other in inner.trackers if other is not tracker)
                _active.set(_FanOut(left) if left else None)
