"""Billing scenarios: how a teacher's calls are billed, cached prefixes and batches included."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from langchain_core.messages.ai import UsageMetadata
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from langchain_gkt.costs.listed import MIN_CACHED_TOKENS, least_cached, listed_price
from langchain_gkt.costs.prices import Price, Prices, check_price, describe_price, price_call
from langchain_gkt.costs.usage import Tokens, as_usage
from langchain_gkt.errors import ConfigurationError, explain, refuse_unknown


def _rate(name: str, most: int | None) -> BeforeValidator:
    def check(value: Any) -> Decimal | None:
        if value is None:
            return None
        try:
            rate = Decimal(str(value))
        except InvalidOperation:
            rate = Decimal(-1)
        if isinstance(value, bool) or not rate.is_finite() or rate < 0:
            raise ValueError(f"{name} must be a share of the price, such as 0.1, not {value!r}")
        if most is not None and rate > most:
            raise ValueError(
                f"{name}={value} would cost more than the full price; give the share that is "
                "paid, from 0 to 1, such as 0.1"
            )
        return rate

    return BeforeValidator(check)


def _tokens(name: str, least: int) -> BeforeValidator:
    def check(value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of {least} or more, not {value!r}")
        return value

    return BeforeValidator(check)


def _hit_rate(value: Any) -> Any:
    if value == "measured":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(
            "CachedPrefix.hit_rate must be a share from 0 to 1, such as 0.95, or 'measured', not "
            f"{value!r}"
        )
    return float(value)


class _Model(BaseModel):
    """Fields that cannot be changed. An error names one field and fix in one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        refuse_unknown(values, type(self).model_fields, type(self).__name__)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(explain(error)) from None


class CachedPrefix(_Model):
    """The part of each prompt that a provider's cache holds, and its price.

    A provider caches the common beginning of prompts, if it is long enough.
    """

    min_tokens: Annotated[int, _tokens("CachedPrefix.min_tokens", 0)] = MIN_CACHED_TOKENS
    """Shorter prefixes are not cached."""
    read_rate: Annotated[Decimal | None, _rate("CachedPrefix.read_rate", 1)] = None
    """Price of a token read from the cache, as a share of a plain one, such as 0.1. None for the
    price's own.
    """
    write_rate: Annotated[Decimal | None, _rate("CachedPrefix.write_rate", None)] = None
    """The same for a token written there, such as 1.25. None for the price's own."""
    hit_rate: Annotated[float | Literal["measured"], BeforeValidator(_hit_rate)] = "measured"
    """Assumed share of calls that find the prefix. The others write it. ``measured`` for the tokens
    that the provider reports.
    """
    tokens: Annotated[int | None, _tokens("CachedPrefix.tokens", 1)] = None
    """How many tokens all prompts begin with. None to measure it, where all prompts are known."""

    def share(self, prompt: int) -> tuple[int, int]:
        """Return the tokens of a prompt that are read from the cache, and those written.

        Args:
            prompt: Its tokens.

        Returns:
            The expected value for a call at `hit_rate`. Zeros if the prefix is too short.
        """
        prefix = min(self.tokens or 0, prompt)
        if self.hit_rate == "measured" or prefix < self.min_tokens:
            return 0, 0
        cached = round(prefix * self.hit_rate)
        return cached, prefix - cached


class BillingScenario(_Model):
    """How a teacher's calls are billed: price, cached prefix, batch.

    Ready-made for a model of the public price list: `scenarios_of` and `listed`.
    """

    name: str = ""
    """Its name in reports. If empty, made from the other fields."""
    price: Any = None
    """As ``teacher_price`` for `CostTracker`."""
    cached_prefix: CachedPrefix | None = CachedPrefix()
    """The cached prefix. None if nothing is cached. If not given, as the provider reports."""
    tier: str | None = None
    """The service tier, such as ``batch``. None for the one in the responses."""
    tier_rate: Annotated[Decimal | None, _rate("BillingScenario.tier_rate", None)] = None
    """Price of that tier as a share of the standard one, such as 0.5. None for the price's own."""

    @model_validator(mode="after")
    def _agree(self) -> BillingScenario:
        check_price(self.price, "BillingScenario.price")
        object.__setattr__(self, "tier", self.tier and self.tier.lower())
        if self.tier_rate is not None and self.tier is None:
            raise ValueError("BillingScenario.tier_rate says what a tier costs; name it: tier=")
        if self.tier == "batch" and self.tier_rate is not None and self.tier_rate > 1:
            raise ValueError(
                f"BillingScenario.tier_rate={self.tier_rate} would make a batch dearer; give the "
                "share that is paid, from 0 to 1, such as 0.5"
            )
        if self._changes_rates and not isinstance(self.price, Price | str):
            raise ValueError(
                "BillingScenario.price must be a Price, or a listed model such as "
                "'openai:gpt-5-mini', for rates of its own to be a share of"
            )
        if not self.name:
            object.__setattr__(self, "name", self._described())
        return self

    @classmethod
    def listed(
        cls,
        model: str,
        *,
        cached_prefix: CachedPrefix | bool = False,
        batch: bool = False,
        name: str = "",
    ) -> BillingScenario:
        """Make a scenario of the public price list.

        Args:
            model: A model that genai-prices knows, such as ``openai:gpt-5-mini``.
            cached_prefix: Whether all prompts begin alike, and every call finds that in the cache.
                Or a `CachedPrefix`.
            batch: Whether the calls go through the batch endpoint.
            name: Its name in reports.

        Raises:
            ConfigurationError: If the list does not know the model. Gives the date of its newest
                price.
        """
        listed_price(model)
        if cached_prefix is True:
            cached_prefix = CachedPrefix(min_tokens=least_cached(model), hit_rate=1.0)
        return cls(
            name=name,
            price=model,
            cached_prefix=cached_prefix or None,
            tier="batch" if batch else None,
        )

    @property
    def _changes_rates(self) -> bool:
        prefix = self.cached_prefix
        own = (self.tier_rate, prefix and prefix.read_rate, prefix and prefix.write_rate)
        return any(rate is not None for rate in own)

    def _described(self) -> str:
        parts = []
        if self.cached_prefix and self.cached_prefix.hit_rate != "measured":
            parts.append(f"prefix cached in {self.cached_prefix.hit_rate:.0%} of calls")
        return ", ".join([*parts, *([self.tier] if self.tier else [])]) or "list price"

    @property
    def billed_price(self) -> Prices:
        """The price with the scenario's own rates."""
        price: Prices = self.price
        if not self._changes_rates:
            return price
        rates = listed_price(price) if isinstance(price, str) else price
        assert isinstance(rates, Price)
        prefix = self.cached_prefix
        if prefix and prefix.read_rate is not None:
            rates = replace(rates, cached_input_mtok=rates.input_mtok * prefix.read_rate)
        if prefix and prefix.write_rate is not None:
            write = rates.input_mtok * prefix.write_rate
            rates = replace(rates, cache_write_mtok=write, cache_write_1h_mtok=None)
        if self.tier and self.tier_rate is not None:
            rates = replace(rates, tiers={**rates.tiers, self.tier: self.tier_rate})
        return rates

    def as_billed(self, usage: UsageMetadata) -> UsageMetadata:
        """Return a call's usage with the cached tokens of this scenario.

        Args:
            usage: The provider's report.
        """
        if self.cached_prefix is None:
            return uncached(usage)
        if self.cached_prefix.hit_rate == "measured":
            return usage
        cached, written = self.cached_prefix.share(usage["input_tokens"])
        billed: Any = uncached(usage)
        details = {"cache_read": cached, "cache_creation": written}
        billed["input_token_details"] = {**billed.get("input_token_details", {}), **details}
        return billed  # type: ignore[no-any-return]

    def cost(self, prompt: int, completion: int) -> Decimal:
        """Return the cost of one call, in US dollars.

        Args:
            prompt: Its prompt tokens.
            completion: Its completion tokens.

        Raises:
            ConfigurationError: If the scenario has no price of its own, or more is cached than
                prompted.
        """
        check_prefix(self, prompt)
        price, hint = self.billed_price, "give BillingScenario(price=...)"
        if not isinstance(price, Price | str):
            raise ConfigurationError(f"{self.name}: no price of a call is known", hint=hint)
        usage = self.as_billed(as_usage(Tokens(prompt=prompt, completion=completion)))
        cost = price_call(price, usage, provider=None, model="", base_url=None, tier=self.tier)
        if cost.prompt is None or cost.completion is None:
            raise ConfigurationError(f"{self.name}: {cost.source}", hint=hint)
        return cost.prompt + cost.completion

    def with_prefix(self, tokens: int | None) -> BillingScenario:
        """Return the scenario with a measured prefix, if it assumes hits and names none.

        Args:
            tokens: How many tokens all prompts begin with. None if that is unknown.

        Raises:
            ConfigurationError: If it is needed and unknown, or the scenario's own is longer.
        """
        prefix = self.cached_prefix
        if prefix is None or prefix.hit_rate == "measured" or prefix.tokens is not None:
            return self
        if tokens is None:
            raise ConfigurationError(
                f"{self.name}: how many tokens all prompts begin with is not known",
                hint="give CachedPrefix(tokens=...), or hit_rate='measured'",
            )
        named = prefix.model_copy(update={"tokens": tokens or 1})
        return self.model_copy(update={"cached_prefix": named})

    def notes(self) -> list[str]:
        """Return which rates the price lacks, and how old it is."""
        price = self.billed_price
        if isinstance(price, str):
            price = listed_price(price)
        if not isinstance(price, Price):
            return []
        own, notes = price.of_tier(self.tier), []
        if self.tier and own is None:
            notes.append(f"no price in tier {self.tier}: the standard one is used")
        rates = own or price
        if self.cached_prefix and self.cached_prefix.hit_rate != "measured":
            if rates.cached_input_mtok is None:
                notes.append("no price of cached tokens: they cost as much as the others")
            if rates.cache_write_mtok is None:
                notes.append("no price of cache writes: they cost as much as other tokens")
        return [f"{self.name}: {note} ({price.source})" for note in notes]


def scenarios_of(
    price: Price | str,
    *,
    cached_prefix: bool = True,
    batch: bool = True,
    tokens: int | None = None,
) -> tuple[BillingScenario, ...]:
    """Return the scenarios of a price: list price, cached prefix, batch, and both.

    Args:
        price: A model that genai-prices knows, such as ``openai:gpt-5-mini``, or a `Price`.
        cached_prefix: Whether the common beginning of all prompts may be cached.
        batch: Whether the calls may be a batch.
        tokens: How many tokens all prompts begin with. None to measure it.

    Raises:
        ConfigurationError: If the list does not know the model.
    """
    least = MIN_CACHED_TOKENS
    if isinstance(price, str):
        listed_price(price)
        least = least_cached(price)
    front = CachedPrefix(min_tokens=least, hit_rate=1.0, tokens=tokens)
    fronts = [("", None), *([("cached prefix", front)] if cached_prefix else [])]
    return tuple(
        BillingScenario(
            name=", ".join(filter(None, (name, tier))) or "list price",
            price=price,
            cached_prefix=prefix,
            tier=tier,
        )
        for tier in (None, *(["batch"] if batch else []))
        for name, prefix in fronts
    )


def uncached(usage: UsageMetadata) -> UsageMetadata:
    """Return usage without any cached token, all of them at the full price."""
    details = usage.get("input_token_details") or {}
    kept: Any = {"audio": details["audio"]} if details.get("audio") else {}
    return {**usage, "input_token_details": kept}


def describe_scenario(scenario: BillingScenario | None) -> dict[str, Any] | None:
    """Return a scenario as plain values, the same on every day. None for None."""
    if scenario is None:
        return None
    values = scenario.model_dump(mode="json", exclude={"price"})
    return {**values, "price": describe_price(scenario.price)}


def check_prefix(scenario: BillingScenario, shortest: int) -> None:
    """Refuse a prefix that is longer than the tokens of the shortest prompt.

    Raises:
        ConfigurationError: If more is cached than prompted.
    """
    prefix = scenario.cached_prefix
    if prefix is not None and (prefix.tokens or 0) > shortest:
        raise ConfigurationError(
            f"CachedPrefix.tokens={prefix.tokens} is more than the {shortest} tokens of a whole "
            "prompt",
            hint="give what all prompts begin with, or leave it out to measure it",
        )
