"""CostAggregator: prices finished runs, sums them up, and keeps the budget."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_gkt._langchain_compat import tracing_params
from langchain_gkt.costs.budget import (
    Budget,
    Ledger,
    Reservation,
    completion_limit,
    known_cost,
    max_prompt_tokens,
)
from langchain_gkt.costs.estimate import estimate_teacher_only, offline_tokenizer, on_whole_prompt
from langchain_gkt.costs.price_list import CallCost
from langchain_gkt.costs.prices import MachineTime
from langchain_gkt.costs.role_prices import RolePrices
from langchain_gkt.costs.runs.model_runs import ChainCall, ModelRun, RunResult, read_run
from langchain_gkt.costs.scenarios import uncached
from langchain_gkt.costs.totals import BusyClock, CallRecord, Estimate, UsageTotals
from langchain_gkt.costs.usage import TokenRate, Tokens, as_usage, read_tokens, text_length
from langchain_gkt.metadata import from_cache
from langchain_gkt.providers.errors import may_have_billed
from langchain_gkt.providers.usage import service_tier

_LOG = logging.getLogger(__name__)
_UNKNOWN_COST = CallCost(prompt=None, completion=None, source="unpriced: it could not be counted")

# A tracer asks right after the end of a run.
_MAX_LAST_COSTS = 1000
# Callers may send any name, and tiktoken looks only at how names begin.
_MAX_NAME = 100

_COUNTED = ("models", "estimate", "hidden_retries", "ledger", "rates", "_told")
_OF_RUNS = ("last_costs", "_busy", "_busy_marks")


class CostAggregator:
    """Subscribes to runs. Keeps sums by role and model, the teacher-only estimate, the budget."""

    def __init__(
        self,
        *,
        prices: RolePrices,
        budget: Budget | None,
        lock: AbstractContextManager[Any],
        tokenizer: Callable[[str], int] | None = None,
        records: list[CallRecord] | None = None,
    ) -> None:
        """Start at zero. The options are those of `CostTracker`.

        ``records`` collects a record of each run. Its holder can take ``lock`` again.
        """
        self.prices = prices
        self.tokenizer = tokenizer
        self.models: dict[tuple[str, str], UsageTotals] = {}
        self.estimate = Estimate()
        self.hidden_retries: set[str] = set()
        self._told: set[str] = set()
        self.running = 0
        self.ledger = Ledger(budget) if budget else None
        self._records = records
        self.rates: dict[tuple[str, str], TokenRate] = {}
        self._lock = lock
        self._start_runs()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the counts. Running calls stay with their own process."""
        with self._lock:
            state = {k: v for k, v in self.__dict__.items() if k not in _OF_RUNS}
            counted = {name: copy.deepcopy(state[name]) for name in _COUNTED}
        if counted["ledger"]:
            counted["ledger"].release_all()
        return {**state, **counted, "running": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue counting from the pickled state."""
        self.__dict__.update(state)
        self._start_runs()

    def _start_runs(self) -> None:
        self.last_costs: OrderedDict[UUID, dict[str, float]] = OrderedDict()
        self._busy = BusyClock()
        self._busy_marks: dict[UUID, float] = {}

    def run_started(self, run: ModelRun, messages: Sequence[BaseMessage]) -> None:
        """Start the clock of the student's machine. See `RunSubscriber`."""
        if run.is_chain or run.role is None:  # its models' runs are counted instead
            return
        with self._lock:
            self.running += 1
            if run.role == "student":
                self._busy_marks[run.run_id] = self._busy.start(run.started_at)

    def run_ended(self, run: ModelRun, result: RunResult, call: ChainCall | None) -> None:
        """Price a model's run and add it to the sums. See `RunSubscriber`."""
        if run.is_chain or run.role is None:
            return
        totals = UsageTotals(
            calls=1,
            retries=int(run.retry),
            failed_calls=int(result.failed),
            seconds=result.seconds,
        )
        with self._lock:
            self.running -= 1
            mark = self._busy_marks.pop(run.run_id, None)
            if mark is not None:
                totals.busy_seconds = self._busy.end(run.started_at + result.seconds, mark)
        if run.first_token_at is not None:
            totals.first_token_calls = 1
            totals.first_token_seconds = run.first_token_at - run.started_at
        try:
            self._measure(run, totals, result)
        except Exception:  # noqa: BLE001  a call that is missing in the bill would be worse
            _LOG.exception("a run of %s could not be priced; it is unreported", run.model)
            totals.add_unreported(Tokens(prompt=0, completion=0), run.limit, _UNKNOWN_COST)
        with self._lock:
            self._add(run, totals)
            if call is not None:
                call.spent.add(totals)
                if run.role == "teacher":
                    call.teacher = run
            if self._records is not None:
                self._records.append(_record(run, result, totals))
            new = totals.unknown_details - self._told
            self._told |= new
        if new:
            warnings.warn(
                f"the {run.role} ({run.model}) reports tokens as {', '.join(sorted(new))}, which "
                "no price here knows; they are billed as plain tokens",
                UserWarning,
                stacklevel=2,
            )

    def call_ended(self, call: ChainCall, message: AIMessage | None) -> None:
        """Add a chain call to the teacher-only estimate. See `RunSubscriber`."""
        with self._lock:
            if self.ledger:
                self.ledger.release(call.call_id)
        if not call.compared or not call.spent.calls:
            return
        estimate = self._teacher_only(call, message) if message is not None else None
        with self._lock:
            if estimate is None:
                self.estimate.not_estimated_calls += 1
                return
            whole, own, naive, method = estimate
            self.estimate.calls += 1
            self.estimate.methods[method] = self.estimate.methods.get(method, 0) + 1
            self.estimate.counts.add(whole)
            self.estimate.own_prompt.add(own)
            self.estimate.own_prompt_calls += whole is not own
            self.estimate.naive.add(naive)
            self.estimate.guided.add(call.spent)

    def reservation(
        self, models: Sequence[Any], messages: Sequence[BaseMessage], limit: int | None
    ) -> Reservation:
        """Return the highest cost of a teacher's call, of the most expensive model it may reach.

        Raises:
            BudgetExceeded: If the budget is in money and a model is unpriced.
        """
        chars = text_length(list(messages))
        tokens = 0
        usd: Decimal | None = None
        for model in models:
            completion = completion_limit(model) if limit is None else limit
            base_url = getattr(model, "openai_api_base", None) or getattr(model, "base_url", None)
            serialized = {"kwargs": {"base_url": base_url}}
            run = read_run("teacher", serialized, tracing_params(model), prompt_chars=chars)
            with self._lock:
                rate = self.rates.get(("teacher", run.model))
            prompt = max_prompt_tokens(messages, chars, rate)
            tokens = max(tokens, prompt + completion)
            if self.ledger and self.ledger.budget.needs_prices:
                largest = as_usage(Tokens(prompt=prompt, completion=completion))
                # Such as "priority", which costs more. The response may name it or not.
                asked = service_tier({"service_tier": getattr(model, "service_tier", None)})
                for tier in dict.fromkeys((None, asked)):
                    cost = self.prices.cost(replace(run, tier=tier), largest)
                    usd = max(usd or Decimal(0), known_cost(cost, run.model))
        return Reservation(tokens=tokens, usd=usd)

    def reserve(self, call_id: str, call: ChainCall | None, most: Reservation) -> None:
        """Reserve the cost of a teacher's call. The caller holds the lock.

        Raises:
            BudgetExceeded: If that could pass the budget.
        """
        if self.ledger:
            spent = call.spent.known_cost + call.spent.unreported_cost if call else Decimal(0)
            self.ledger.reserve(call_id, most, spent)

    def _measure(self, run: ModelRun, totals: UsageTotals, result: RunResult) -> None:
        """Add a run's usage and cost to its totals."""
        message, usage, error = result.message, result.usage, result.error
        text = text_length([message]) if message else 0
        with self._lock:
            rate = self.rates.setdefault((str(run.role), run.model), TokenRate())
        if from_cache(usage):
            totals.cache_hits = 1
        elif usage:
            usage = self.prices.billed(run, usage)
            tokens = read_tokens(usage, self.prices.tier_of(run))
            with self._lock:
                learned = 0 if error else text
                rate.learn(tokens, prompt_chars=run.prompt_chars, text_chars=learned)
            money = self.prices.cost(run, usage)
            totals.add_measured(tokens, money)
            if self.prices.is_nearly_cached(run, tokens, money):
                totals.nearly_cached_calls = 1
                totals.nearly_cached_tokens = tokens.prompt
            # Some providers report the prompt first, which leaves out the text written since.
            unseen = rate.completion(text) - tokens.completion
            if error is not None and unseen > 0 and not _is_finished(message):
                self._add_estimate(run, totals, Tokens(prompt=0, completion=unseen))
        elif error is None or may_have_billed(error):
            completion = rate.completion(text)
            if error is not None and not text:  # only its limit is known
                completion = run.limit or 0
            prompt = rate.prompt(run.prompt_chars)
            self._add_estimate(run, totals, Tokens(prompt=prompt, completion=completion))
        price = self.prices.of(run.role)
        if isinstance(price, MachineTime):
            totals.machine_cost = price.cost(totals.busy_seconds)
        if usage and not totals.cache_hits and not totals.unpriced_calls:
            with self._lock:
                # As LangSmith reads them, where the total is the sum of the other two.
                self.last_costs[run.run_id] = {
                    "input_cost": float(totals.prompt_cost),
                    "output_cost": float(totals.completion_cost + totals.machine_cost),
                    "total_cost": float(totals.known_cost),
                }
                if len(self.last_costs) > _MAX_LAST_COSTS:
                    self.last_costs.popitem(last=False)

    def _add_estimate(self, run: ModelRun, totals: UsageTotals, tokens: Tokens) -> None:
        totals.add_unreported(tokens, run.limit, self.prices.cost(run, as_usage(tokens)))

    def _add(self, run: ModelRun, totals: UsageTotals) -> None:
        """Add a run to the sums. The caller holds the lock."""
        self.models.setdefault((str(run.role), run.model), UsageTotals()).add(totals)
        if run.retries_inside and not totals.cache_hits:
            self.hidden_retries.add(run.model)
        if self.ledger:
            self.ledger.spend(str(run.role), totals, run.call_id)
            if run.role == "teacher":
                self.ledger.release(run.call_id)

    def _teacher_only(
        self, call: ChainCall, message: AIMessage
    ) -> tuple[UsageTotals, UsageTotals, UsageTotals, str] | None:
        """Estimate the teacher alone: on the whole conversation, on its own prompt, and naively."""
        gkt: dict[str, Any] = message.response_metadata["gkt"]
        usage, run = gkt.get("teacher_usage"), call.teacher
        if not usage or run is None or from_cache(usage) or call.spent.cache_hits:
            return None
        count = self.tokenizer or offline_tokenizer(run.model[:_MAX_NAME])
        estimate = estimate_teacher_only(gkt, usage, str(message.text), count)
        if estimate is None:
            return None
        usage, method = estimate
        own = whole = self._alone(run, usage)
        if share := gkt.get("teacher_prompt_share"):
            usage = on_whole_prompt(usage, share)
            whole = self._alone(run, usage)
        prices, naive = self.prices, whole
        if prices.scenario or prices.tier_of(run) or usage.get("input_token_details"):
            naive = self._alone(run, usage, naive=True)
        return whole, own, naive, method

    def _alone(self, run: ModelRun, usage: UsageMetadata, *, naive: bool = False) -> UsageTotals:
        """Price a call of the teacher alone, naively at the list price with nothing cached."""
        usage = uncached(usage) if naive else self.prices.billed(run, usage)
        tier = None if naive else self.prices.tier_of(run)
        alone = UsageTotals(calls=1)
        alone.add_measured(read_tokens(usage, tier), self.prices.cost(run, usage, list_price=naive))
        return alone


def _record(run: ModelRun, result: RunResult, totals: UsageTotals) -> CallRecord:
    return CallRecord(
        role=str(run.role),
        model=run.model,
        call_id=run.call_id,
        mode=run.mode,
        usage=result.usage,
        seconds=totals.seconds,
        first_token_seconds=totals.first_token_seconds if totals.first_token_calls else None,
        error=repr(result.error) if result.failed else None,
        retry=run.retry,
        counts=totals,
    )


def _is_finished(message: AIMessage | None) -> bool:
    metadata = message.response_metadata if message else {}
    return bool(metadata.get("finish_reason") or metadata.get("stop_reason"))
