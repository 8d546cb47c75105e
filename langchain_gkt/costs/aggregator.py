"""The tracker's books: prices what ended, sums it up, and keeps the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult

from langchain_gkt._langchain_compat import tracing_params
from langchain_gkt.costs.budget import (
    UNLIMITED_COMPLETION,
    Budget,
    Claim,
    Ledger,
    dearest,
    most_prompt_tokens,
)
from langchain_gkt.costs.estimate import offline_tokenizer, teacher_only
from langchain_gkt.costs.prices import FREE, MachineTime, Money, Prices, dated, price_call
from langchain_gkt.costs.runs import OpenCall, OpenRun, open_run
from langchain_gkt.costs.totals import Counts, Estimate
from langchain_gkt.costs.usage import (
    Density,
    Tokens,
    from_cache,
    may_have_billed,
    message_of,
    read_tokens,
    text_length,
    usage_of,
)


class Accounts:
    """Sums by role and model, the teacher-only estimate and the budget's ledger."""

    def __init__(
        self,
        *,
        teacher_price: Prices,
        student_price: Prices | MachineTime,
        budget: Budget | None,
        tokenizer: Callable[[str], int] | None,
        lock: AbstractContextManager[Any],
    ) -> None:
        """Start at zero.

        Args:
            teacher_price: As for `CostTracker`.
            student_price: As for `CostTracker`.
            budget: As for `CostTracker`.
            tokenizer: As for `CostTracker`.
            lock: The tracker's lock; it can be taken again by who holds it.
        """
        if teacher_price is None and budget is not None:
            teacher_price = budget.teacher_price
        self.prices: dict[str, Any] = {
            "teacher": teacher_price,
            "student": FREE if student_price is None else student_price,
        }
        self.tokenizer = tokenizer
        self.models: dict[tuple[str, str], Counts] = {}
        self.estimate = Estimate()
        self.compared = Counts()
        self.hidden_retries: set[str] = set()
        self.ledger = Ledger(budget) if budget else None
        self._density: dict[tuple[str, str], Density] = {}
        self._lock = lock

    def measure(
        self, run: OpenRun, one: Counts, response: LLMResult, error: BaseException | None
    ) -> UsageMetadata | None:
        """Add to a run's counts what it used and what that cost.

        Args:
            run: The run that ended.
            one: Its counts so far.
            response: What it ended with, as far as that is known.
            error: What ended it early, or None.

        Returns:
            Its usage, or None where none was reported.
        """
        message = message_of(response)
        usage = usage_of(response, message)
        if message:
            named = message.response_metadata
            run.answered = named.get("model_name") or named.get("model") or None
            run.tier = named.get("service_tier") or (response.llm_output or {}).get("service_tier")
        text = text_length([message]) if message else 0
        with self._lock:
            density = self._density.setdefault((run.role, run.model), Density())
        if from_cache(usage):
            one.cache_hits = 1
        elif usage:
            tokens = read_tokens(usage, run.tier)
            with self._lock:
                learned = 0 if error else text
                density.learn(tokens, prompt_chars=run.prompt_chars, text_chars=learned)
            one.measured(tokens, self.price(run, usage))
            # Some providers report the prompt first: what was written since is not in there.
            unseen = density.completion(text) - tokens.completion
            if error is not None and unseen > 0 and not _is_finished(message):
                self._guess(run, one, Tokens(prompt=0, completion=unseen))
        elif error is None or may_have_billed(error):
            completion = density.completion(text)
            if error is not None and not text:  # nothing is known of it but its limit
                completion = run.limit or 0
            prompt = density.prompt(run.prompt_chars)
            self._guess(run, one, Tokens(prompt=prompt, completion=completion))
        hourly = self.prices[run.role]
        if isinstance(hourly, MachineTime):
            one.machine_cost = hourly.cost(one.busy_seconds)
        return usage

    def _guess(self, run: OpenRun, one: Counts, tokens: Tokens) -> None:
        one.unreported(tokens, run.limit, self.price(run, _as_usage(tokens)))

    def price(self, run: OpenRun, usage: UsageMetadata) -> Money:
        """Price a run's usage.

        Args:
            run: The run.
            usage: What it used, or is thought to have used.

        Returns:
            The money.
        """
        price = self.prices[run.role]
        if isinstance(price, MachineTime):
            source = f"{dated(price)}: ${price.usd_per_hour:f} an hour of busy time"
            none = Decimal(0)
            return Money(prompt=none, completion=none, source=source, prompt_if_cached=none)
        if isinstance(price, Mapping):
            price = price.get(run.answered or "") or price.get(run.model)
        return price_call(
            price,
            usage,
            provider=run.provider,
            model=run.answered or run.model,
            base_url=run.base_url,
            tier=run.tier,
            requested_model=run.model,
        )

    def book(self, run: OpenRun, one: Counts) -> None:
        """Add a run that ended to the sums. The caller holds the lock.

        Args:
            run: The run.
            one: Its counts.
        """
        total = self.compared
        if not run.compared:
            total = self.models.setdefault((run.role, run.model), Counts())
        total.add(one)
        if run.retries_inside and not one.cache_hits:
            self.hidden_retries.add(run.model)
        if self.ledger:
            self.ledger.spend(run.role, one)
            if run.role == "teacher":
                self.ledger.release(run.call_id)

    def close(self, call: OpenCall, message: AIMessage | None) -> None:
        """Take a chain call that ended into the teacher-only estimate.

        Args:
            call: The call.
            message: Its answer, or None where it has none.
        """
        if call.mode != "guided" or not call.spent.calls:
            return
        if call.teacher is not None and call.teacher.compared:
            return
        found = self._teacher_only(call, message) if message is not None else None
        with self._lock:
            if found is None:
                self.estimate.not_estimated_calls += 1
                return
            alone, method = found
            self.estimate.calls += 1
            self.estimate.methods[method] = self.estimate.methods.get(method, 0) + 1
            self.estimate.counts.add(alone)
            self.estimate.guided.add(call.spent)

    def _teacher_only(self, call: OpenCall, message: AIMessage) -> tuple[Counts, str] | None:
        gkt: dict[str, Any] = message.response_metadata["gkt"]
        usage, run = gkt.get("teacher_usage"), call.teacher
        if not usage or run is None or from_cache(usage) or call.spent.cache_hits:
            return None
        count = self.tokenizer or offline_tokenizer(run.model)
        found = teacher_only(gkt, usage, str(message.text), count)
        if found is None:
            return None
        alone = Counts(calls=1)
        alone.measured(read_tokens(found[0], run.tier), self.price(run, found[0]))
        return alone, found[1]

    def claim(
        self, models: Sequence[Any], messages: Sequence[BaseMessage], limit: int | None
    ) -> Claim:
        """Return the most a teacher's call can come to.

        Args:
            models: The chat models it may reach.
            messages: The prompt.
            limit: Most completion tokens; None where it has no limit.

        Returns:
            Tokens and money, of the dearest model.

        Raises:
            BudgetExceeded: If the budget is in money and a model is unpriced.
        """
        chars = text_length(list(messages))
        completion = UNLIMITED_COMPLETION if limit is None else limit
        found, most = [], 0
        for model in models:
            serialized = {"kwargs": {"base_url": _address(model)}}
            run = open_run("teacher", serialized, tracing_params(model), prompt_chars=chars)
            with self._lock:
                density = self._density.get(("teacher", run.model))
            prompt = most_prompt_tokens(messages, chars, density)
            most = max(most, prompt + completion)
            if self.ledger and self.ledger.budget.needs_prices:
                largest = _as_usage(Tokens(prompt=prompt, completion=completion))
                found.append((run.model, self.price(run, largest)))
        return Claim(tokens=most, usd=dearest(found) if found else None)


def _is_finished(message: AIMessage | None) -> bool:
    found = message.response_metadata if message else {}
    return bool(found.get("finish_reason") or found.get("stop_reason"))


def _as_usage(tokens: Tokens) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=tokens.prompt,
        output_tokens=tokens.completion,
        total_tokens=tokens.prompt + tokens.completion,
    )


def _address(model: Any) -> str | None:
    address = getattr(model, "openai_api_base", None) or getattr(model, "base_url", None)
    return address if isinstance(address, str) else None
