"""Prices usage in Decimal US dollars: the user's price, else genai-prices, else unpriced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, TypeAlias

from langchain_core.messages.ai import UsageMetadata
from pydantic import ConfigDict, PlainValidator, ValidationInfo
from pydantic.dataclasses import dataclass

from langchain_gkt.costs.runs.model_runs import ModelRun
from langchain_gkt.costs.usage import Tokens, read_tokens
from langchain_gkt.metadata import Role

_MTOK = Decimal(1_000_000)


def _usd(value: object, info: ValidationInfo) -> Decimal:
    """Return money as a Decimal."""
    name = _field(info)
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


def _field(info: ValidationInfo) -> str:
    return f"{(info.config or {}).get('title')}.{info.field_name}"


# A float cannot hold money exactly, so pydantic's own conversion to Decimal is not used.
Usd: TypeAlias = Annotated[Decimal, PlainValidator(_usd)]
"""US dollars: a Decimal, int or decimal string, finite and not negative."""


@dataclass(frozen=True, config=ConfigDict(title="Price"))
class Price:
    """What a model costs, in US dollars per million tokens.

    An amount is a Decimal, an int or a decimal string, and not negative; a float, which cannot
    hold money exactly, is a TypeError.

    Attributes:
        input_mtok: Per million prompt tokens.
        output_mtok: Per million completion tokens.
        cached_input_mtok: Per million prompt tokens read from the provider's cache; None
            if they cost as much as the others.
        source: Where the price comes from, as reports show it.
        as_of: Date of the price, as reports show it; None for the day a user gives it.
    """

    input_mtok: Usd
    output_mtok: Usd
    cached_input_mtok: Usd | None = None
    source: str = "user"
    as_of: str | None = None

    def __post_init__(self) -> None:
        """Date what the user gave."""
        _set_date(self)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(title="MachineTime"))
class MachineTime:
    """What a student costs by the hour of the machine it runs on.

    Only busy time is charged: seconds in which at least one call of the student runs, so
    that calls side by side share them.

    Attributes:
        usd_per_hour: US dollars. Decimal, int or decimal string.
        source: Where the price comes from, as reports show it.
        as_of: Date of the price, as reports show it; None for the day a user gives it.
    """

    usd_per_hour: Usd
    source: str = "user"
    as_of: str | None = None

    def __post_init__(self) -> None:
        """Date what the user gave."""
        _set_date(self)

    def cost(self, seconds: float) -> Decimal:
        """Return the US dollars of some busy seconds, counted in microseconds."""
        return Decimal(round(seconds * 1_000_000)) * self.usd_per_hour / 3600 / 1_000_000


def _set_date(price: Price | MachineTime) -> None:
    """Date what the user gave by the day it was given, if by nothing else."""
    if price.as_of is None and price.source == "user":
        object.__setattr__(price, "as_of", f"{datetime.now():%Y-%m-%d}")


Prices: TypeAlias = Price | str | Mapping[str, Price | str] | None
"""A price for every model, or one for each model's name, or None to look them up."""

FREE = Price(input_mtok=Decimal(0), output_mtok=Decimal(0), source="free: runs locally")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallCost:
    """The price of one call, in US dollars.

    Attributes:
        prompt: Of the prompt tokens, with a fee for the request itself; None if unpriced.
        completion: Of the completion tokens; None if unpriced.
        source: Where the price comes from with its date, or why there is none.
        prompt_if_cached: Of the prompt tokens had the provider read all of them from its
            cache; None if no price for that is known.
    """

    prompt: Decimal | None
    completion: Decimal | None
    source: str
    prompt_if_cached: Decimal | None = None


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
        price: The user's price; or a model that genai-prices knows, such as
            ``openai:gpt-4o-mini``; or None to look the called model up there, by the server's
            address first then by the provider's id.
        usage: The call's usage metadata.
        provider: The called provider's id.
        model: The model's name as the response gave it.
        base_url: The called server's address, if known.
        tier: The service tier the response names. A user's price holds for every tier.
        requested_model: The model's name as it was asked for, tried if the other is unknown.

    Returns:
        The cost; its amounts are None, with the reason, if the model has no known price.
    """
    tokens = read_tokens(usage, tier)
    if isinstance(price, Price):
        return _by_price(price, tokens)
    try:
        import genai_prices  # noqa: F401  the extra may be missing
    except ImportError:
        return _unpriced('install "langchain-gkt[prices]" or give a Price')
    if isinstance(price, str):
        listed, _, name = price.rpartition(":")
        places = [(name, {"provider_id": listed or None}, "as named by the user")]
    else:
        places = list(_places(provider, base_url, (model, requested_model)))
    for name, place, how in places:
        if found := _look_up(tokens, name, place, how):
            return found
    return _unpriced(f"no known price of {price if isinstance(price, str) else model!r}")


def _unpriced(why: str) -> CallCost:
    return CallCost(prompt=None, completion=None, source=f"unpriced: {why}")


def _by_price(price: Price, tokens: Tokens) -> CallCost:
    rate = price.cached_input_mtok
    if rate is None and not price.input_mtok:  # what is free is free from a cache too
        rate = price.input_mtok
    plain = (tokens.prompt - tokens.cached) * price.input_mtok
    cached = tokens.cached * (price.input_mtok if rate is None else rate)
    return CallCost(
        prompt=(plain + cached) / _MTOK,
        completion=tokens.completion * price.output_mtok / _MTOK,
        prompt_if_cached=None if rate is None else tokens.prompt * rate / _MTOK,
        source=dated_source(price),
    )


def dated_source(price: Price | MachineTime) -> str:
    """Return a price's source with its date."""
    return f"{price.source} of {price.as_of}" if price.as_of else price.source


def _places(
    provider: str | None, base_url: str | None, names: tuple[str | None, ...]
) -> Iterator[tuple[str, dict[str, str | None], str]]:
    for name in dict.fromkeys(name for name in names if name):
        if base_url:
            yield name, {"provider_api_url": base_url}, "by server address"
    for name in dict.fromkeys(name for name in names if name):
        if provider:
            how = "by provider id"
            if base_url:
                how += f", because {base_url} is no address it knows"
            yield name, {"provider_id": provider}, how


def _look_up(
    tokens: Tokens, model: str, place: Mapping[str, str | None], how: str
) -> CallCost | None:
    """Ask genai-prices; None if it knows no price that covers these tokens."""
    from genai_prices import Usage, calc_price

    calc: Any = calc_price  # its overloads cannot be met by a mapping
    context = {"service_tier": tokens.tier} if tokens.tier else None

    def ask(cached: int, written: int) -> Any:
        return calc(
            Usage(
                input_tokens=tokens.prompt,
                output_tokens=tokens.completion,
                cache_read_tokens=cached or None,
                cache_write_tokens=written or None,
                input_audio_tokens=tokens.prompt_audio or None,
                output_audio_tokens=tokens.completion_audio or None,
            ),
            model,
            **place,
            price_context=context,
        )

    try:
        found = ask(tokens.cached, tokens.cache_written)
        rates = found.model_price
        # A model billed by the minute or the picture has no token price: that is not 0.
        if tokens.prompt and rates.input_mtok is None:
            return None
        if tokens.completion and rates.output_mtok is None:
            return None
        cheaper = rates.cache_read_mtok is not None and not tokens.prompt_audio
        all_cached = ask(tokens.prompt, 0).input_price if cheaper else None
    except (LookupError, ValueError):  # unknown, or usage that its price cannot hold
        return None
    fee = found.total_price - found.input_price - found.output_price
    tiered = ""
    if tokens.tier:
        variants = found.model.price_variants or ()
        known = any(one.when.get("service_tier") == tokens.tier for one in variants)
        tiered = f" (tier {tokens.tier}{'' if known else ': no such price, standard used'})"
    when = found.auto_update_timestamp or datetime.now(timezone.utc)
    verb = "updated" if found.auto_update_timestamp else "looked up"
    return CallCost(
        prompt=found.input_price + fee,
        completion=found.output_price,
        prompt_if_cached=None if all_cached is None else all_cached + fee,
        source=f"{found.provider.id}:{found.model.id}{tiered}, genai-prices {_release()} "
        f"({how}; {verb} {when:%Y-%m-%d})",
    )


@cache
def _release() -> str:
    return version("genai-prices")


def check_price(price: object, name: str, *, machine_time: bool = False) -> None:
    """Refuse what is no price.

    Args:
        price: What the user gave.
        name: The argument's name.
        machine_time: Whether the price of an hour is one too.

    Raises:
        TypeError: If it is neither a `Price`, a model reference, a mapping of them nor None.
    """
    if isinstance(price, Mapping):
        for model, one in price.items():
            if not isinstance(model, str) or one is None or isinstance(one, Mapping):
                raise TypeError(f"{name} must map a model's name to its price, not {model!r}")
            check_price(one, f"{name}[{model!r}]")
    elif isinstance(price, MachineTime) and not machine_time:
        raise TypeError(f"{name} must be a Price; an hour of machine time is a student's price")
    elif price is not None and not isinstance(price, Price | str | MachineTime):
        raise TypeError(
            f"{name} must be a Price(input_mtok='0.15', output_mtok='0.60') or a model such as "
            f"'openai:gpt-4o-mini', not {type(price).__name__}"
        )


def refuse_unlisted(price: object, name: str) -> None:
    """Refuse a model reference that no price list knows, before anything is paid for.

    Args:
        price: What the user gave.
        name: The argument's name.

    Raises:
        ValueError: If it refers to a model without a known price.
    """
    if isinstance(price, Mapping):
        for model, one in price.items():
            refuse_unlisted(one, f"{name}[{model!r}]")
    elif isinstance(price, str):
        usage = UsageMetadata(input_tokens=1, output_tokens=1, total_tokens=2)
        found = price_call(price, usage, provider=None, model=price, base_url=None)
        if found.prompt is None:
            raise ValueError(
                f"{name}={price!r} is {found.source}; give Price(input_mtok=..., output_mtok=...) "
                "or a listed model such as 'openai:gpt-4o-mini'"
            )


class RolePrices:
    """The prices of the two roles."""

    def __init__(self, *, teacher: Prices, student: Prices | MachineTime) -> None:
        """Keep the prices.

        Args:
            teacher: What the teacher costs; None to look up the model that was called.
            student: What the student costs; None for free.
        """
        self.teacher: Prices = teacher
        self.student: Prices | MachineTime = FREE if student is None else student

    def of(self, role: Role | None) -> Prices | MachineTime:
        """Return the price that was given for a role."""
        return self.student if role == "student" else self.teacher

    def cost(self, run: ModelRun, usage: UsageMetadata) -> CallCost:
        """Price a run.

        Args:
            run: The run.
            usage: What it used, or is thought to have used.

        Returns:
            What that costs; with `MachineTime` its tokens cost nothing.
        """
        price = self.of(run.role)
        if isinstance(price, MachineTime):
            source = f"{dated_source(price)}: ${price.usd_per_hour:f} an hour of busy time"
            zero = Decimal(0)
            return CallCost(prompt=zero, completion=zero, source=source, prompt_if_cached=zero)
        if isinstance(price, Mapping):
            price = price.get(run.response_model or "") or price.get(run.model)
        return price_call(
            price,
            usage,
            provider=run.provider,
            model=run.response_model or run.model,
            base_url=run.base_url,
            tier=run.tier,
            requested_model=run.model,
        )
