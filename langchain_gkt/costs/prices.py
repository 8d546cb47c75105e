"""Prices usage in Decimal US dollars: the user's price, else genai-prices, else unpriced."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from langchain_core.messages.ai import UsageMetadata
from pydantic import ConfigDict, PlainValidator, ValidationInfo
from pydantic.dataclasses import dataclass

from langchain_gkt.costs.price_list import (
    CallCost,
    look_up,
    missing_rates,
    newest_price,
    places,
    release,
    tier_note,
)
from langchain_gkt.costs.usage import Tokens, read_tokens
from langchain_gkt.errors import KnownFields

_MTOK = Decimal(1_000_000)


def _usd(value: object, info: ValidationInfo) -> Decimal:
    return _money(value, f"{(info.config or {}).get('title')}.{info.field_name}")


def _money(value: object, name: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise TypeError(
            f"{name} must be a Decimal, int or string such as '0.15', not {type(value).__name__}"
        )
    try:
        amount = Decimal(value)
    except ArithmeticError as error:
        raise ValueError(f"{name}={value!r} is not a number") from error
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return amount


# A float cannot hold money exactly, so pydantic's own conversion to Decimal is not used.
Usd: TypeAlias = Annotated[Decimal, PlainValidator(_usd)]
"""US dollars: a Decimal, int or decimal string, finite and not negative."""


def _tiers(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"Price.tiers must map a tier to its price, not {type(value).__name__}")
    checked = {}
    for tier, cost in value.items():
        if not isinstance(tier, str):
            raise TypeError(f"Price.tiers must name tiers such as 'batch', not {tier!r}")
        name = f"Price.tiers[{tier!r}]"
        checked[tier.lower()] = cost if isinstance(cost, Price) else _money(cost, name)
    return checked


@dataclass(frozen=True, config=ConfigDict(title="Price"))
class Price(KnownFields):
    """The price of a model, in US dollars per million tokens.

    An amount is a Decimal, an int or a decimal string, and not negative. A float, which cannot
    hold money exactly, is a TypeError.

    Attributes:
        input_mtok: Per million prompt tokens.
        output_mtok: Per million completion tokens.
        cached_input_mtok: Per million prompt tokens read from the provider's cache. None
            if they cost as much as the others.
        source: The source of the price, as reports show it.
        as_of: Date of the price, as reports show it. None for the day a user sets it.
        cache_write_mtok: Per million prompt tokens written to the provider's cache. None if they
            cost as much as the others, which reports then note.
        cache_write_1h_mtok: The same for tokens that stay there for an hour. None for
            ``cache_write_mtok``.
        tiers: Prices of other service tiers, such as ``batch`` and ``flex``: a `Price`, or a factor
            for each amount, such as ``"0.5"``.
    """

    input_mtok: Usd
    output_mtok: Usd
    cached_input_mtok: Usd | None = None
    source: str = "user"
    as_of: str | None = None
    cache_write_mtok: Usd | None = None
    cache_write_1h_mtok: Usd | None = None
    tiers: Annotated[Mapping[str, Any], PlainValidator(_tiers)] = dataclasses.field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        """Set the date of the user's price."""
        _set_date(self)

    def of_tier(self, tier: str | None) -> Price | None:
        """Return the price in a service tier. None if it has none of its own."""
        tier_price = self.tiers.get((tier or "").lower())
        if tier_price is None or isinstance(tier_price, Price):
            return tier_price
        names = (field.name for field in dataclasses.fields(self) if field.name.endswith("_mtok"))
        rates = {name: rate for name in names if (rate := getattr(self, name)) is not None}
        amounts = {name: rate * tier_price for name, rate in rates.items()}
        return dataclasses.replace(self, **amounts, tiers={})


@dataclass(frozen=True, kw_only=True, config=ConfigDict(title="MachineTime"))
class MachineTime(KnownFields):
    """A student's cost by the hour of the machine it runs on.

    Only busy time is charged: seconds in which at least one call of the student runs. Calls side by
    side share them.

    Attributes:
        usd_per_hour: US dollars. Decimal, int or decimal string.
        source: The source of the price, as reports show it.
        as_of: Date of the price, as reports show it. None for the day a user sets it.
    """

    usd_per_hour: Usd
    source: str = "user"
    as_of: str | None = None

    def __post_init__(self) -> None:
        """Set the date of the user's price."""
        _set_date(self)

    def cost(self, seconds: float) -> Decimal:
        """Return the US dollars of some busy seconds, counted in microseconds."""
        return Decimal(round(seconds * 1_000_000)) * self.usd_per_hour / 3600 / 1_000_000


def _set_date(price: Price | MachineTime) -> None:
    """Date the user's price by the day of its entry, if it has no date."""
    if price.as_of is None and price.source == "user":
        object.__setattr__(price, "as_of", f"{datetime.now():%Y-%m-%d}")


Prices: TypeAlias = Price | str | Mapping[str, Price | str] | None
"""A price for every model, or one for each model's name, or None to look them up."""

FREE = Price(input_mtok=Decimal(0), output_mtok=Decimal(0), source="free: runs locally")


def price_call(
    price: Price | str | None,
    usage: UsageMetadata,
    *,
    provider: str | None,
    model: str,
    base_url: str | None,
    tier: str | None = None,
    requested_model: str | None = None,
) -> CallCost:
    """Price one call.

    Args:
        price: The user's price, or a model that genai-prices knows. None to look up the called
            model there, by the server's address first and then by the provider's id.
        usage: The call's usage metadata.
        provider: The called provider's id.
        model: The model's name as the response gave it.
        base_url: The called server's address, if known.
        tier: The service tier that the response or the user names.
        requested_model: The model's name in the request, tried if the other is unknown.

    Returns:
        The cost. Its amounts are None, with the reason, if the model has no known price.
    """
    tokens = read_tokens(usage, tier)
    if isinstance(price, Price):
        cost = _by_price(price, tokens)
        note = _older_than(model, price.as_of)
        return dataclasses.replace(cost, source=cost.source + note) if note else cost
    try:
        import genai_prices  # noqa: F401  the extra may be missing
    except ImportError:
        return _unpriced('install "langchain-gkt[prices]" or give a Price')
    if isinstance(price, str):
        listed, _, name = price.rpartition(":")
        found_at = [(name, {"provider_id": listed or None}, "as named by the user")]
    else:
        found_at = list(places(provider, base_url, (model, requested_model)))
    for name, place, how in found_at:
        if call_cost := look_up(tokens, name, place, how):
            return call_cost
    return _unpriced(
        f"no known price of {price if isinstance(price, str) else repr(model)} in genai-prices "
        f"{release()}, whose newest price is of {newest_price()}"
    )


def _unpriced(why: str) -> CallCost:
    return CallCost(prompt=None, completion=None, source=f"unpriced: {why}")


def _by_price(price: Price, tokens: Tokens) -> CallCost:
    source = dated_source(price)
    if tokens.tier:
        own = price.of_tier(tokens.tier)
        source += tier_note(tokens.tier, known=own is not None or not price.input_mtok)
        price = own or price
    rate = price.cached_input_mtok
    if rate is None and not price.input_mtok:  # a free model is free from a cache too
        rate = price.input_mtok
    write = price.input_mtok if price.cache_write_mtok is None else price.cache_write_mtok
    hour = write if price.cache_write_1h_mtok is None else price.cache_write_1h_mtok
    if price.input_mtok:
        writes = price.cache_write_mtok is not None
        source += missing_rates(tokens, reads=rate is not None, writes=writes)
    plain = (tokens.prompt - tokens.cached - tokens.cache_written) * price.input_mtok
    cached = tokens.cached * (price.input_mtok if rate is None else rate)
    written = (tokens.cache_written - tokens.cache_written_1h) * write
    written += tokens.cache_written_1h * hour
    return CallCost(
        prompt=(plain + cached + written) / _MTOK,
        completion=tokens.completion * price.output_mtok / _MTOK,
        prompt_if_cached=None if rate is None else tokens.prompt * rate / _MTOK,
        source=source,
        cached=cached / _MTOK,
        cache_written=written / _MTOK,
    )


def _older_than(model: str, as_of: str | None) -> str:
    """Return a note if a price is older than a model whose name ends in its date."""
    dated = re.search(r"-(20\d\d)-?(\d\d)-?(\d\d)$", model)
    if dated is None or as_of is None or "-".join(dated.groups()) <= as_of:
        return ""
    return f" (older than {model})"


def dated_source(price: Price | MachineTime) -> str:
    """Return a price's source with its date."""
    return f"{price.source} of {price.as_of}" if price.as_of else price.source


def describe_price(price: Prices | MachineTime) -> Any:
    """Return a price as plain values, the same on every day."""
    if price is None or isinstance(price, str):
        return price
    if isinstance(price, Mapping):
        return {model: describe_price(model_price) for model, model_price in price.items()}
    data = dataclasses.asdict(price)
    for tier in data.get("tiers", {}).values():
        if isinstance(tier, dict):
            del tier["as_of"]
    return {name: str(value) for name, value in data.items() if name != "as_of"}


def check_price(price: object, name: str, *, machine_time: bool = False) -> None:
    """Refuse an invalid price of the argument ``name``.

    Raises:
        TypeError: If it is neither a `Price`, a model reference, a mapping of them nor None.
    """
    if isinstance(price, Mapping):
        for model, cost in price.items():
            if not isinstance(model, str) or cost is None or isinstance(cost, Mapping):
                raise TypeError(f"{name} must map a model's name to its price, not {model!r}")
            check_price(cost, f"{name}[{model!r}]")
    elif isinstance(price, MachineTime) and not machine_time:
        raise TypeError(f"{name} must be a Price; an hour of machine time is a student's price")
    elif price is not None and not isinstance(price, Price | str | MachineTime):
        raise TypeError(
            f"{name} must be a Price(input_mtok='0.15', output_mtok='0.60') or a model such as "
            f"'openai:gpt-4o-mini', not {type(price).__name__}"
        )


def refuse_unlisted(price: object, name: str) -> None:
    """Refuse a model reference that no price list knows, before anything is paid for.

    Raises:
        ValueError: If it refers to a model without a known price.
    """
    if isinstance(price, Mapping):
        for model, model_price in price.items():
            refuse_unlisted(model_price, f"{name}[{model!r}]")
    elif isinstance(price, str):
        usage = UsageMetadata(input_tokens=1, output_tokens=1, total_tokens=2)
        cost = price_call(price, usage, provider=None, model=price, base_url=None)
        if cost.prompt is None:
            raise ValueError(
                f"{name}={price!r} is {cost.source}; give Price(input_mtok=..., output_mtok=...) "
                "or a listed model such as 'openai:gpt-4o-mini'"
            )
