"""Looks up the cost of one call in the public price list genai-prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Any

from langchain_gkt.costs.usage import Tokens

_MTOK = Decimal(1_000_000)
TIER_KEYS = ("service_tier", "processing", "speed")
"""Markers of a tier in the list. Each provider has its own."""


@dataclass(frozen=True, kw_only=True)
class CallCost:
    """The price of one call, in US dollars.

    Attributes:
        prompt: Price of the prompt tokens, with a fee for the request itself. None if unpriced.
        completion: Price of the completion tokens. None if unpriced.
        source: The source of the price with its date, or why there is none.
        prompt_if_cached: Price of the prompt tokens had the provider read all of them from its
            cache. None if that price is unknown.
        cached: The part of ``prompt`` for tokens read from the provider's cache.
        cache_written: The part of it for tokens written there.
    """

    prompt: Decimal | None
    completion: Decimal | None
    source: str
    prompt_if_cached: Decimal | None = None
    cached: Decimal = Decimal(0)
    cache_written: Decimal = Decimal(0)


def missing_rates(tokens: Tokens, *, reads: bool, writes: bool) -> str:
    """Return a note on cached tokens that are billed as plain input because a rate is missing."""
    note = ""
    if tokens.cached and not reads:
        note += " (cached tokens as plain input: no cached_input_mtok)"
    if tokens.cache_written and not writes:
        note += " (cache writes as plain input: no cache_write_mtok)"
    return note


def tier_note(tier: str, *, known: bool) -> str:
    """Return a note on the tier of a call's price, and on whether the tier has one of its own."""
    return f" (tier {tier}{'' if known else ': no such price, standard used'})"


def places(
    provider: str | None, base_url: str | None, names: tuple[str | None, ...]
) -> Iterator[tuple[str, dict[str, str | None], str]]:
    """Yield the places of the list where a call's price may be, by the likeliest name first.

    Yields:
        A model's name, arguments of ``calc_price`` for its owner, and how the owner is known.
    """
    known = [name for name in dict.fromkeys(names) if name]
    if base_url:
        for name in known:
            yield name, {"provider_api_url": base_url}, "by server address"
    if provider:
        why = f", because {base_url} is no address it knows" if base_url else ""
        for name in known:
            yield name, {"provider_id": provider}, f"by provider id{why}"


def look_up(
    tokens: Tokens, model: str, place: Mapping[str, str | None], how: str
) -> CallCost | None:
    """Ask genai-prices for the cost of a model at a place of `places`.

    Returns:
        The cost. None if no known price covers these tokens.
    """
    from genai_prices import Usage, calc_price

    calc: Any = calc_price  # a mapping cannot match its overloads
    context = dict.fromkeys(TIER_KEYS, tokens.tier) if tokens.tier else None

    def ask(cached: int, written: int, hour: int) -> Any:
        return calc(
            Usage(
                input_tokens=tokens.prompt,
                output_tokens=tokens.completion,
                cache_read_tokens=cached or None,
                cache_write_tokens=written or None,
                cache_write_1h_tokens=hour or None,
                input_audio_tokens=tokens.prompt_audio or None,
                output_audio_tokens=tokens.completion_audio or None,
            ),
            model,
            **place,
            price_context=context,
        )

    try:
        calculation = ask(tokens.cached, tokens.cache_written, tokens.cache_written_1h)
        rates = calculation.model_price
        # A model billed by the minute or the picture has no token price. That is not 0.
        if tokens.prompt and rates.input_mtok is None:
            return None
        if tokens.completion and rates.output_mtok is None:
            return None
        cheaper = rates.cache_read_mtok is not None and not tokens.prompt_audio
        all_cached = ask(tokens.prompt, 0, 0).input_price if cheaper else None
    except (LookupError, ValueError):  # unknown, or usage that its price cannot hold
        return None
    fee = calculation.total_price - calculation.input_price - calculation.output_price
    plain, reads, writes, hours = (
        _rate(getattr(rates, f"{name}_mtok"), tokens.prompt)
        for name in ("input", "cache_read", "cache_write", "cache_write_1h")
    )
    tiered = missing_rates(tokens, reads=reads is not None, writes=writes is not None)
    five = tokens.cache_written - tokens.cache_written_1h
    written = five * _first(writes, plain) + tokens.cache_written_1h * _first(hours, writes, plain)
    if tokens.tier:
        variants = calculation.model.price_variants or ()
        known = any(
            variant.when.get(key) == tokens.tier for variant in variants for key in TIER_KEYS
        )
        tiered += tier_note(tokens.tier, known=known)
    when = calculation.auto_update_timestamp or datetime.now(timezone.utc)
    verb = "updated" if calculation.auto_update_timestamp else "looked up"
    return CallCost(
        prompt=calculation.input_price + fee,
        completion=calculation.output_price,
        prompt_if_cached=None if all_cached is None else all_cached + fee,
        source=f"{calculation.provider.id}:{calculation.model.id}{tiered}, genai-prices "
        f"{release()} ({how}; {verb} {when:%Y-%m-%d})",
        cached=tokens.cached * _first(reads, plain) / _MTOK,
        cache_written=written / _MTOK,
    )


def _rate(price: Any, prompt: int) -> Decimal | None:
    """Return the price of a million tokens in a prompt of some length."""
    rate: Decimal | None = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        rate = tier.price if prompt > tier.start else rate
    return rate


def _first(*rates: Decimal | None) -> Decimal:
    return next((rate for rate in rates if rate is not None), Decimal(0))


@cache
def release() -> str:
    """Return the version of the price list."""
    return version("genai-prices")


@cache
def newest_price() -> date:
    """Return the day of the latest price change in the list. Later models are not in it."""
    from genai_prices import data_snapshot

    models = [listed for owner in data_snapshot.get_snapshot().providers for listed in owner.models]
    dated: list[Any] = [price for model in models for price in model.price_variants or ()]
    for model in models:
        dated += model.prices if isinstance(model.prices, list) else []
    days = (getattr(price.constraint, "start_date", None) for price in dated)
    newest: date = max(d for d in days if d and d <= datetime.now(timezone.utc).date())
    return newest
