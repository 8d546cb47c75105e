"""Turns usage into Decimal money: the user's price, else genai-prices, else unpriced."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from langchain_core.messages.ai import UsageMetadata

_MTOK = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars per million tokens.

    Attributes:
        input_mtok: Per million prompt tokens. Decimal, int or decimal string.
        output_mtok: Per million completion tokens.
        cached_input_mtok: Per million prompt tokens read from the provider's cache; None
            where they cost as much as the others.
        source: Where the price comes from, as reports show it.
        as_of: Date of the price, as reports show it.
    """

    input_mtok: Decimal
    output_mtok: Decimal
    cached_input_mtok: Decimal | None = None
    source: str = "user"
    as_of: str | None = None

    def __post_init__(self) -> None:
        """Make every amount a Decimal.

        Raises:
            TypeError: If an amount is a float, which cannot hold money exactly.
            ValueError: If an amount is negative or not a number.
        """
        for field in fields(self)[:3]:
            amount = getattr(self, field.name)
            if amount is None and field.name == "cached_input_mtok":
                continue
            if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
                raise TypeError(
                    f"Price.{field.name} must be a Decimal, int or string such as '0.15', "
                    f"not {type(amount).__name__}"
                )
            try:
                exact = Decimal(amount)
            except ArithmeticError as error:
                raise ValueError(f"Price.{field.name}={amount!r} is not a number") from error
            if not exact.is_finite() or exact < 0:
                raise ValueError(f"Price.{field.name} must be 0 or more, not {amount}")
            object.__setattr__(self, field.name, exact)


FREE = Price(input_mtok=Decimal(0), output_mtok=Decimal(0), source="free: runs locally")


@dataclass(frozen=True, kw_only=True)
class Money:
    """The price of one call, in US dollars.

    Attributes:
        prompt: Of the prompt tokens; None if unpriced.
        completion: Of the completion tokens; None if unpriced.
        source: Where the price comes from, or why there is none.
    """

    prompt: Decimal | None
    completion: Decimal | None
    source: str


def price_call(
    price: Price | str | None,
    usage: UsageMetadata,
    *,
    provider: str | None,
    model: str,
    base_url: str | None,
) -> Money:
    """Price one call.

    Args:
        price: The user's price; or a model that genai-prices knows, such as
            ``openai:gpt-4o-mini``; or None to look the called model up there.
        usage: The call's usage metadata.
        provider: The called provider's id.
        model: The called model's name.
        base_url: The called server's address, if known.

    Returns:
        The money, or None amounts with the reason where the model has no known price.
    """
    if isinstance(price, Price):
        cached = (usage.get("input_token_details") or {}).get("cache_read", 0)
        cached = min(cached, usage["input_tokens"])  # never a negative price
        rate = price.input_mtok if price.cached_input_mtok is None else price.cached_input_mtok
        prompt = ((usage["input_tokens"] - cached) * price.input_mtok + cached * rate) / _MTOK
        completion = usage["output_tokens"] * price.output_mtok / _MTOK
        dated = f" of {price.as_of}" if price.as_of else ""
        return Money(prompt=prompt, completion=completion, source=f"{price.source}{dated}")
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return Money(
            prompt=None,
            completion=None,
            source='unpriced: install "langchain-gkt[prices]" or give a Price',
        )
    details: Any = usage.get("input_token_details") or {}
    counted = Usage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cache_read_tokens=details.get("cache_read") or None,
        cache_write_tokens=details.get("cache_creation") or None,
    )
    if isinstance(price, str):
        provider, _, model = price.rpartition(":")
        places: list[dict[str, str | None]] = [{"provider_id": provider or None}]
    else:
        places = [{"provider_api_url": base_url}] if base_url else []
        places += [{"provider_id": provider}] if provider else []
    calc: Any = calc_price  # its overloads cannot be met by a mapping
    for place in places:
        try:
            found: Any = calc(counted, model, **place)
        except (LookupError, ValueError):  # unknown, or usage that its price cannot hold
            continue
        return Money(
            prompt=found.input_price,
            completion=found.output_price,
            source=f"{found.provider.id}:{found.model.id}, genai-prices {version('genai-prices')}",
        )
    return Money(prompt=None, completion=None, source=f"unpriced: no known price of {model!r}")


def check_price(price: object, name: str) -> None:
    """Refuse what is no price.

    Args:
        price: What the user gave.
        name: The argument's name.

    Raises:
        TypeError: If it is neither a `Price`, a model reference nor None.
    """
    if price is not None and not isinstance(price, Price | str):
        raise TypeError(
            f"{name} must be a Price(input_mtok='0.15', output_mtok='0.60') or a model such as "
            f"'openai:gpt-4o-mini', not {type(price).__name__}"
        )
