"""Prices of the public list as a `Price`, and the shortest prefix that providers cache."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from langchain_gkt.costs.price_list import TIER_KEYS, newest_price, release
from langchain_gkt.costs.prices import Price
from langchain_gkt.errors import ConfigurationError

MIN_CACHED_TOKENS = 1024
"""The shortest prefix that OpenAI, Gemini and most models of Anthropic cache."""
_NEARLY = 0.75
"""From this share of the shortest cached prompt on, a prompt counts as nearly long enough."""
_LONGER = ("claude-haiku-4-5", "claude-opus-4-5", "claude-opus-4-6", "claude-opus-4-7")
_LONGER_TOKENS = 4096


def least_cached(model: str) -> int:
    """Return the shortest prefix that a model's provider caches, in tokens."""
    return _LONGER_TOKENS if model.rpartition(":")[2].startswith(_LONGER) else MIN_CACHED_TOKENS


def is_nearly_cached(prompt: int, least: int) -> bool:
    """Whether a prompt is just too short for a cache with this minimum."""
    return _NEARLY * least <= prompt < least


def listed_price(model: str) -> Price:
    """Return a price of the public list as a `Price`, with its tiers.

    It is the price of prompts up to the length at which a provider may charge more.

    Raises:
        ConfigurationError: If the list does not know the model, or has no price of its tokens.
        ImportError: If genai-prices is missing.
    """
    try:
        from genai_prices import data_snapshot
    except ImportError as error:
        raise ImportError('listed prices need: pip install "langchain-gkt[prices]"') from error
    listed, _, name = model.rpartition(":")
    now = datetime.now(timezone.utc)
    try:
        owner, entry = data_snapshot.get_snapshot().find_provider_model(
            name, None, listed or None, None
        )
        rates: Any = entry.get_prices(now)
    except LookupError:
        rates = None
    if rates is None or rates.input_mtok is None or rates.output_mtok is None:
        raise ConfigurationError(
            f"no known price of {model} in genai-prices {release()}, whose newest price is of "
            f"{newest_price()}",
            hint="give a Price(input_mtok=..., output_mtok=...), or a model of the list",
        )
    standard = Price(
        **_amounts(rates),
        source=f"{owner.id}:{entry.id}, genai-prices {release()}",
        as_of=str(newest_price()),
    )
    tiers = {}
    for tier in {str(v) for variant in entry.price_variants or () for v in variant.when.values()}:
        own = entry.get_prices(now, dict.fromkeys(TIER_KEYS, tier))
        if own != rates:
            tiers[tier] = replace(standard, **_amounts(own))
    return replace(standard, tiers=tiers)


_LISTED = {
    "input_mtok": "input_mtok",
    "output_mtok": "output_mtok",
    "cached_input_mtok": "cache_read_mtok",
    "cache_write_mtok": "cache_write_mtok",
    "cache_write_1h_mtok": "cache_write_1h_mtok",
}


def _amounts(rates: Any) -> dict[str, Any]:
    """Return the rates of a listed price by the names of `Price`."""
    known = {name: getattr(rates, listed) for name, listed in _LISTED.items()}
    return {n: getattr(rate, "base", rate) for n, rate in known.items() if rate is not None}
