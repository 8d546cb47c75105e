"""Sums of calls, tokens, seconds and money, and a machine's busy time."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.costs.price_list import CallCost
from langchain_gkt.costs.usage import Tokens

_ZERO = Decimal(0)


@dataclass(kw_only=True)
class UsageTotals:
    """Sums over calls. Tokens and US dollars are measured. `unreported_*` ones are estimated.

    Attributes:
        calls: Calls made, however they ended. Each attempt of ``with_retry`` is one.
        retries: Calls that repeat a failed one.
        cache_hits: Calls answered from LangChain's cache. They cost nothing.
        unreported_calls: Calls that a provider may have billed without a report. Their tokens are
            not in the sums.
        prompt_tokens: Prompt tokens, cached ones included.
        cached_prompt_tokens: Prompt tokens the provider read from its cache.
        written_prompt_tokens: Prompt tokens the provider wrote to its cache.
        completion_tokens: Completion tokens, reasoning tokens included.
        reasoning_tokens: Completion tokens spent on hidden reasoning.
        seconds: Time between start and end, summed over calls.
        busy_seconds: The same, but calls that run at the same time share it.
        first_token_calls: Calls that streamed.
        first_token_seconds: Time to their first token, summed.
        prompt_cost: US dollars for prompt tokens.
        cached_prompt_cost: The part of it for tokens read from the provider's cache.
        written_prompt_cost: The part of it for tokens written there.
        completion_cost: US dollars for completion tokens.
        machine_cost: US dollars for busy seconds of a machine paid by the hour.
        prompt_cost_if_cached: US dollars had the provider read every prompt from its cache.
        uncacheable_calls: Priced calls for which no price of cached prompts is known.
        nearly_cached_calls: Calls whose prompt was a little too short for the provider's cache.
        nearly_cached_tokens: Prompt tokens of those.
        unpriced_calls: Calls whose model has no known price. They are not in the money.
        unreported_completion_limit: Maximum completion tokens that they can have been billed.
        unlimited_calls: Unreported calls without a limit.
        unreported_unpriced_calls: Unreported calls whose model has no known price.
        unknown_details: Names of reported details that are unknown here. Their tokens are billed as
            plain ones.
    """

    calls: int = 0
    failed_calls: int = 0
    retries: int = 0
    cache_hits: int = 0
    unreported_calls: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    written_prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    busy_seconds: float = 0.0
    first_token_calls: int = 0
    first_token_seconds: float = 0.0
    prompt_cost: Decimal = _ZERO
    cached_prompt_cost: Decimal = _ZERO
    written_prompt_cost: Decimal = _ZERO
    completion_cost: Decimal = _ZERO
    machine_cost: Decimal = _ZERO
    prompt_cost_if_cached: Decimal = _ZERO
    uncacheable_calls: int = 0
    nearly_cached_calls: int = 0
    nearly_cached_tokens: int = 0
    unpriced_calls: int = 0
    unreported_prompt_tokens: int = 0
    unreported_completion_tokens: int = 0
    unreported_completion_limit: int = 0
    unlimited_calls: int = 0
    unreported_prompt_cost: Decimal = _ZERO
    unreported_completion_cost: Decimal = _ZERO
    unreported_unpriced_calls: int = 0
    sources: set[str] = field(default_factory=set)
    unknown_details: set[str] = field(default_factory=set)

    @property
    def known_cost(self) -> Decimal:
        """US dollars of the calls that are measured and priced."""
        return self.prompt_cost + self.completion_cost + self.machine_cost

    @property
    def uncached_prompt_tokens(self) -> int:
        """Prompt tokens at full price."""
        return self.prompt_tokens - self.cached_prompt_tokens - self.written_prompt_tokens

    @property
    def uncached_prompt_cost(self) -> Decimal:
        """US dollars for prompt tokens at full price, with the fee for the request itself."""
        return self.prompt_cost - self.cached_prompt_cost - self.written_prompt_cost

    @property
    def unreported_cost(self) -> Decimal:
        """Estimated US dollars of the unreported calls."""
        return self.unreported_prompt_cost + self.unreported_completion_cost

    @property
    def complete(self) -> bool:
        """Whether the money covers every call."""
        return not self.unpriced_calls and not self.unreported_calls

    def add(self, other: UsageTotals) -> None:
        """Add other sums to these."""
        for name in _NAMES:
            if value := getattr(other, name):
                setattr(self, name, getattr(self, name) + value)
        self.sources |= other.sources
        self.unknown_details |= other.unknown_details

    def add_measured(self, tokens: Tokens, money: CallCost) -> None:
        """Add the tokens and the cost of one call whose usage was reported."""
        self.prompt_tokens += tokens.prompt
        self.cached_prompt_tokens += tokens.cached
        self.written_prompt_tokens += tokens.cache_written
        self.completion_tokens += tokens.completion
        self.reasoning_tokens += tokens.reasoning
        self.sources.add(money.source)
        self.unknown_details.update(tokens.unknown)
        if money.prompt is None or money.completion is None:
            self.unpriced_calls += 1
            return
        self.prompt_cost += money.prompt
        self.cached_prompt_cost += money.cached
        self.written_prompt_cost += money.cache_written
        self.completion_cost += money.completion
        if money.prompt_if_cached is None:
            self.uncacheable_calls += 1
        else:
            self.prompt_cost_if_cached += money.prompt_if_cached

    def add_unreported(self, tokens: Tokens, limit: int | None, money: CallCost) -> None:
        """Add one call that may have been billed without reporting its usage.

        Args:
            tokens: Its estimated usage.
            limit: Maximum completion tokens that can have been billed, or None.
            money: The estimate's cost.
        """
        self.unreported_calls += 1
        self.unreported_prompt_tokens += tokens.prompt
        self.unreported_completion_tokens += tokens.completion
        if limit is None:
            self.unlimited_calls += 1
        else:
            self.unreported_completion_limit += limit
        self.sources.add(money.source)
        if money.prompt is None or money.completion is None:
            self.unreported_unpriced_calls += 1
        else:
            self.unreported_prompt_cost += money.prompt
            self.unreported_completion_cost += money.completion

    def to_dict(self) -> dict[str, Any]:
        """Return plain values. Money is in decimal strings, None if it leaves calls out."""
        some = bool(self.unreported_calls)
        estimable = some and not self.unreported_unpriced_calls
        cacheable = self.complete and not self.uncacheable_calls
        return {
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "retries": self.retries,
            "cache_hits": self.cache_hits,
            "unreported_calls": self.unreported_calls,
            "unpriced_calls": self.unpriced_calls,
            "nearly_cached_calls": self.nearly_cached_calls,
            "prompt_tokens": self.prompt_tokens,
            "uncached_prompt_tokens": self.uncached_prompt_tokens,
            "cached_prompt_tokens": self.cached_prompt_tokens,
            "written_prompt_tokens": self.written_prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "seconds": round(self.seconds, 6),
            "busy_seconds": round(self.busy_seconds, 6),
            "first_token_seconds": (
                round(self.first_token_seconds / self.first_token_calls, 6)
                if self.first_token_calls
                else None
            ),
            # Money that leaves calls out would look like the whole bill.
            "prompt_cost": amount(self.prompt_cost) if self.complete else None,
            "uncached_prompt_cost": amount(self.uncached_prompt_cost) if self.complete else None,
            "cached_prompt_cost": amount(self.cached_prompt_cost) if self.complete else None,
            "written_prompt_cost": amount(self.written_prompt_cost) if self.complete else None,
            "completion_cost": amount(self.completion_cost) if self.complete else None,
            "machine_cost": amount(self.machine_cost),
            "cost": amount(self.known_cost) if self.complete else None,
            "known_prompt_cost": amount(self.prompt_cost),
            "known_completion_cost": amount(self.completion_cost),
            "known_cost": amount(self.known_cost),
            "prompt_cost_if_cached": amount(self.prompt_cost_if_cached) if cacheable else None,
            "price_source": "; ".join(sorted(self.sources)) or None,
            "unknown_details": sorted(self.unknown_details),
            "unreported": {
                "estimated": True,
                "calls": self.unreported_calls,
                "prompt_tokens": self.unreported_prompt_tokens,
                "completion_tokens": self.unreported_completion_tokens,
                "most_completion_tokens": (
                    None if self.unlimited_calls else self.unreported_completion_limit
                ),
                "cost": amount(self.unreported_cost) if estimable or not some else None,
            },
        }


_SETS = ("sources", "unknown_details")
_NAMES = tuple(entry.name for entry in fields(UsageTotals) if entry.name not in _SETS)


def amount(money: Decimal) -> str:
    """Write money without an exponent, every digit of it."""
    return format(money, "f")


@dataclass(kw_only=True)
class Estimate:
    """Sums of what teacher-only would have cost, over the guided calls that allow it.

    Attributes:
        calls: Guided calls in the estimate.
        not_estimated_calls: Guided calls that allow no estimate.
        methods: How many calls were estimated by which method.
        counts: Tokens and money of the hypothetical teacher-only calls, on the whole conversation.
        guided: The same calls as they really were, both models.
        own_prompt_calls: How many of them showed the teacher a prompt of its own.
        own_prompt: As ``counts``, with the prompt that the teacher really got.
        naive: As ``counts``, at the list price: nothing cached, no batch.
    """

    calls: int = 0
    not_estimated_calls: int = 0
    methods: dict[str, int] = field(default_factory=dict)
    counts: UsageTotals = field(default_factory=UsageTotals)
    guided: UsageTotals = field(default_factory=UsageTotals)
    own_prompt_calls: int = 0
    own_prompt: UsageTotals = field(default_factory=UsageTotals)
    naive: UsageTotals = field(default_factory=UsageTotals)

    @property
    def cheapest(self) -> UsageTotals:
        """The cheaper of ``counts`` and ``own_prompt``: the teacher alone, asked as allowed."""
        if not self.own_prompt_calls or self.own_prompt.known_cost >= self.counts.known_cost:
            return self.counts
        return self.own_prompt


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One model call, kept if ``keep_calls`` is set.

    Attributes:
        role: ``teacher`` or ``student``.
        model: The model's name in the request.
        call_id: The chain call it belongs to.
        mode: The chain's mode in that call.
        usage: Usage metadata, or None if none was reported.
        seconds: Time between start and end.
        first_token_seconds: Time to the first streamed token, or None.
        error: The error of a failed call, or None.
        retry: Whether it repeats a failed attempt.
        counts: Its own tokens and money.
    """

    role: str
    model: str
    call_id: str
    mode: str
    usage: UsageMetadata | None
    seconds: float
    first_token_seconds: float | None = None
    error: str | None = None
    retry: bool = False
    counts: UsageTotals = field(default_factory=UsageTotals)


class BusyClock:
    """Shares a machine's time among the runs on it. While n run, each is charged 1/n.

    Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        """Start with nothing running."""
        self._running = 0
        self._share = 0.0
        self._last = 0.0

    def start(self, now: float) -> float:
        """Begin a run. Returns a mark for `end`."""
        self._advance(now)
        self._running += 1
        return self._share

    def end(self, now: float, mark: float) -> float:
        """End a run, and return its busy seconds. All runs' sum to the time in which any ran."""
        self._advance(now)
        self._running -= 1
        return self._share - mark

    def _advance(self, now: float) -> None:
        if self._running:
            self._share += max(0.0, now - self._last) / self._running
        self._last = now
