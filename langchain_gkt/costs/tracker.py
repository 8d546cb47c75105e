"""CostTracker: counts tokens, seconds and money of guided calls by role and model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage

from langchain_gkt.costs.aggregator import CostAggregator
from langchain_gkt.costs.budget import Budget, price_for
from langchain_gkt.costs.observer import BreakerState, CallObserver
from langchain_gkt.costs.prices import MachineTime, Prices, check_price
from langchain_gkt.costs.report import CostReport
from langchain_gkt.costs.role_prices import RolePrices
from langchain_gkt.costs.runs.fork_safe_lock import ForkSafeLock
from langchain_gkt.costs.runs.listener import RunListener
from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.costs.totals import CallRecord


class CostTracker(RunListener, CallObserver):
    """Counts what the teacher and the student of guided calls use, and what it costs.

    Give it as ``config={"callbacks": [tracker]}``, to the chain's constructor, or use
    `track_costs`. It may listen to several chains and threads at once, and you may call
    ``report()`` while they run.

    No callback reports the attempts that a provider's client repeats inside one call, so they are
    not counted. Set its ``max_retries`` to 0 and use ``with_retry``, whose attempts are reported. A
    cancelled call ends without an event. It is counted, as unreported, when its asyncio task ends.
    """

    def __init__(
        self,
        *,
        teacher_price: Prices = None,
        student_price: Prices | MachineTime = None,
        budget: Budget | None = None,
        teacher_tokenizer: Callable[[str], int] | None = None,
        keep_calls: bool = False,
        tier: str | None = None,
        scenario: BillingScenario | None = None,
    ) -> None:
        """Start at zero.

        Args:
            teacher_price: The teacher's price, or a model that genai-prices knows, such as
                ``openai:gpt-4o-mini``, or a mapping from model names to either. None to look up the
                model that was called.
            student_price: The same for the student, or `MachineTime`. None for free.
            budget: Limits that are checked before the teacher is asked.
            teacher_tokenizer: Number of the teacher's tokens in a text, for the teacher-only
                estimate. None for tiktoken if it has the model's file, else for the
                characters per token of the guidance.
            keep_calls: Keep a record of each call in `calls`. Memory then grows with them.
            tier: The service tier of the teacher's calls whose response names none, such as
                ``batch`` if they run as a batch at half price. None for the standard one.
            scenario: How the teacher's calls are billed. Replaces ``teacher_price`` and ``tier``.
                None to keep the billing in their responses.

        Raises:
            TypeError: If a price is neither a `Price` nor a model reference.
            ValueError: If a scenario's price or tier is set a second time.
        """
        check_price(teacher_price, "teacher_price")
        check_price(student_price, "student_price", machine_time=True)
        if budget is not None and not isinstance(budget, Budget):
            raise TypeError(f"budget must be a Budget(usd='5'), not {type(budget).__name__}")
        teacher_price = price_for(budget, teacher_price, scenario)
        self.calls: list[CallRecord] = []
        lock = ForkSafeLock()
        self._aggregator = CostAggregator(
            prices=RolePrices(
                teacher=teacher_price, student=student_price, tier=tier, scenario=scenario
            ),
            budget=budget,
            tokenizer=teacher_tokenizer,
            records=self.calls if keep_calls else None,
            lock=lock,
        )
        self._breakers: dict[str, BreakerState] = {}
        super().__init__(self._aggregator, lock)

    def continued(self, budget: Budget, spent: Mapping[str, Any]) -> CostTracker:
        """Return a new tracker with the prices of this one, and with a budget of its own.

        Args:
            budget: Its limits.
            spent: The part spent before: ``budget`` of an earlier report, or its keys ``spent_usd``
                and ``spent_tokens``. Empty for nothing.

        Returns:
            The tracker. It knows the models' token rates, as this one does.
        """
        sums = self._aggregator
        prices, scenario = sums.prices, sums.prices.scenario
        tracker = CostTracker(
            # The scenario sets these again.
            teacher_price=None if scenario and scenario.price is not None else prices.teacher,
            student_price=prices.student,
            budget=budget,
            teacher_tokenizer=sums.tokenizer,
            tier=None if scenario and scenario.tier else prices.tier,
            scenario=scenario,
        )
        tracker._aggregator.rates = sums.rates
        if tracker._aggregator.ledger:
            tracker._aggregator.ledger.carry(spent)
        return tracker

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
        """Reserve the highest cost of the teacher's next call. The chain asks before each.

        An unused reservation is dropped at the end of ``root``. See `CallObserver`.

        Raises:
            BudgetExceeded: If the call could pass the budget, or the budget is in money and a model
                unpriced. The call has cost nothing.
        """
        if self._aggregator.ledger is None:
            return
        most = self._aggregator.reservation(models, messages, limit)
        with self._lock:
            self._aggregator.reserve(call_id, self._calls.get(call_id), most)
            if root is not None:
                self._call_of({"gkt_call_id": call_id, "gkt_compared": compared}, root)

    def add_breaker(self, models: Sequence[Any], breaker: BreakerState) -> None:
        """Add a teacher's circuit breaker to the report. See `CallObserver`."""
        main = models[0]
        name = getattr(main, "model_name", None) or getattr(main, "model", None)
        with self._lock:
            self._breakers[str(name or type(main).__name__)] = breaker

    def end_run(
        self, run_id: UUID, response: Any, error: BaseException | None = None
    ) -> Mapping[str, float] | None:
        """Count a run, unless LangChain has reported its end, and return its cost.

        Costs of the latest thousand runs are known. See `CallObserver`.
        """
        self._end(run_id, response, error)
        with self._lock:
            return self._aggregator.last_costs.get(run_id)

    def report(self) -> CostReport:
        """Return the counts so far. Calls may still be running."""
        with self._lock:
            sums = self._aggregator
            return CostReport(
                models=copy.deepcopy(sums.models),
                estimate=copy.deepcopy(sums.estimate),
                budget=sums.ledger.to_dict() if sums.ledger else None,
                hidden_retries=tuple(sorted(sums.hidden_retries)),
                running=sums.running,
                breakers={name: breaker.to_dict() for name, breaker in self._breakers.items()},
                scenario=sums.prices.scenario,
            )
