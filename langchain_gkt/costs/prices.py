"""Turns token usage into money: the user's own price, else genai-prices, else unpriced.

All money is USD and `Decimal`. What has no price is *unpriced* (None), never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from langchain_core.messages.ai import UsageMetadata

_MTOK = Decimal(1_000_000)


@dataclass(frozen=True, init=False)
class Price:
    """What a model costs, in USD per million tokens.

    Attributes:
        input_mtok: USD per million prompt tokens.
        output_mtok: USD per million completion tokens, reasoning included.
        cached_input_mtok: USD per million prompt tokens the provider read from its cache; None
            where they cost as much as the others.
        source: Where the price comes from, as the report names it.
        as_of: The price's date, as the report names it.
    """

    input_mtok: Decimal
    output_mtok: Decimal
    cached_input_mtok: Decimal | None
    source: str
    as_of: date | str | None

    def __init__(
        self,
        *,
        input_mtok: Decimal | int | str,
        output_mtok: Decimal | int | str,
        cached_input_mtok: Decimal | int | str | None = None,
        source: str = "user",
        as_of: date | str | None = None,
    ) -> None:
        """Check and keep the amounts.

        Args:
            input_mtok: USD per million prompt tokens.
            output_mtok: USD per million completion tokens.
            cached_input_mtok: USD per million cached prompt tokens; None for ``input_mtok``.
            source: Where the price comes from.
            as_of: The price's date.

        Raises:
            TypeError: If an amount is a float or no number.
            ValueError: If an amount is negative, not finite or not readable.
        """
        set_field = object.__setattr__
        set_field(self, "input_mtok", _amount("input_mtok", input_mtok))
        set_field(self, "output_mtok", _amount("output_mtok", output_mtok))
        cached = cached_input_mtok
        set_field(
            self,
            "cached_input_mtok",
            None if cached is None else _amount("cached_input_mtok", cached),
        )
        set_field(self, "source", source)
        set_field(self, "as_of", as_of)


def _amount(name: str, value: object) -> Decimal:
    if isinstance(value, float):
        raise TypeError(
            f"{name} must not be a float, which cannot hold most prices exactly; "
            f'write {name}="{value}" or Decimal("{value}")'
        )
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise TypeError(
            f"{name} must be a Decimal, an int or a string in USD per million tokens, "
            f"not {type(value).__name__}"
        )
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(f'{name}={value!r} is no number; write it like "0.15"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{name}={value!r} must be 0 or more USD per million tokens")
    return amount


FREE = Price(input_mtok=0, output_mtok=0, source="free: local")


def check_price(name: str, price: object) -> Price | str | None:
    """Return a price as given, or refuse what is none.

    Args:
        name: The argument's name, for the error.
        price: What the user gave.

    Returns:
        The price, a genai-prices model reference, or None.

    Raises:
        TypeError: If it is anything else.
    """
    if price is None or isinstance(price, Price) or (isinstance(price, str) and price.strip()):
        return price
    raise TypeError(
        f"{name} must be a Price or a model reference such as 'openai:gpt-4o-mini', "
        f"not {price!r}; write Price(input_mtok='0.15', output_mtok='0.60')"
    )


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The billed tokens of one model call, as the provider reported them.

    Attributes:
        prompt: All prompt tokens, cached ones included.
        cached_prompt: Prompt tokens the provider read from its cache.
        cache_write: Prompt tokens the provider wrote to its cache.
        prompt_audio: Prompt tokens that were audio.
        completion: All completion tokens, reasoning included.
        reasoning: Completion tokens that were hidden reasoning.
        completion_audio: Completion tokens that were audio.
    """

    prompt: int = 0
    cached_prompt: int = 0
    cache_write: int = 0
    prompt_audio: int = 0
    completion: int = 0
    reasoning: int = 0
    completion_audio: int = 0

    @property
    def visible(self) -> int:
        """Completion tokens that became text."""
        return max(self.completion - self.reasoning, 0)

    @classmethod
    def read(cls, usage: UsageMetadata) -> Tokens:
        """Read LangChain's usage metadata.

        Args:
            usage: Of one message.

        Returns:
            Its tokens; what it does not mention is 0.
        """
        given: Mapping[str, Any] = usage.get("input_token_details") or {}
        written: Mapping[str, Any] = usage.get("output_token_details") or {}
        return cls(
            prompt=usage.get("input_tokens") or 0,
            # langchain-openai names them flex_cache_read, priority_reasoning, ... by service tier.
            cached_prompt=_sum(given, "cache_read"),
            # langchain-anthropic names cache writes by lifetime: ephemeral_5m_input_tokens, ...
            cache_write=_sum(given, "cache_creation") + _sum(given, "_input_tokens"),
            prompt_audio=_sum(given, "audio"),
            completion=usage.get("output_tokens") or 0,
            reasoning=_sum(written, "reasoning"),
            completion_audio=_sum(written, "audio"),
        )


def _sum(details: Mapping[str, Any], ending: str) -> int:
    return sum(value or 0 for key, value in details.items() if key.endswith(ending))


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What a call cost.

    Attributes:
        prompt: USD for its prompt; None where it has no price.
        completion: USD for its completion; None where it has no price.
        source: Where the price comes from and its date, or why there is none.
        free: Whether the price is 0, however many tokens were used.
    """

    prompt: Decimal | None
    completion: Decimal | None
    source: str
    free: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a run named the model it called.

    Attributes:
        names: Its names, the response's before the request's.
        provider: LangChain's ``ls_provider``.
        base_url: The server's address, where the model's constructor was given one.
    """

    names: tuple[str, ...] = ()
    provider: str | None = None
    base_url: str | None = None

    @property
    def name(self) -> str:
        """The name shown in reports."""
        return self.names[0] if self.names else "unknown"


def charge(tokens: Tokens, price: Price | str | None, model: Model) -> Charge:
    """Price the tokens of one call.

    Args:
        tokens: What was used.
        price: The user's price or model reference; None to look the model up.
        model: The model that was called.

    Returns:
        The money, or why there is none.
    """
    if isinstance(price, Price):
        return _by_rates(tokens, price)
    where: list[tuple[str, str | None, str | None]] = []
    if price is not None:
        provider, colon, name = price.strip().partition(":")
        # Some model names hold a colon themselves, so the whole is tried as a name too.
        where = [(name, provider, None)] if colon else []
        return _by_list(tokens, [*where, (price.strip(), None, None)], f"model {price!r}")
    if model.base_url:
        where += [(name, None, model.base_url) for name in model.names]
    if model.provider:
        where += [(name, model.provider, None) for name in model.names]
    return _by_list(tokens, where, f"model {model.name!r} of provider {model.provider!r}")


def _by_rates(tokens: Tokens, price: Price) -> Charge:
    cached = min(tokens.cached_prompt, tokens.prompt)
    cached_rate = price.cached_input_mtok
    if cached_rate is None:
        cached_rate = price.input_mtok
    dated = f" (as of {price.as_of})" if price.as_of else ""
    return Charge(
        prompt=((tokens.prompt - cached) * price.input_mtok + cached * cached_rate) / _MTOK,
        completion=tokens.completion * price.output_mtok / _MTOK,
        source=f"{price.source}{dated}",
        free=not (price.input_mtok or price.output_mtok or cached_rate),
    )


def _by_list(
    tokens: Tokens, where: list[tuple[str, str | None, str | None]], wanted: str
) -> Charge:
    """Ask genai-prices' bundled list; each place is a model's name, a provider, an address."""
    try:
        import genai_prices
    except ImportError:
        return _unpriced("genai-prices is not installed: pip install 'langchain-gkt[prices]'")
    counts = {
        "input_tokens": tokens.prompt,
        "cache_read_tokens": tokens.cached_prompt,
        "cache_write_tokens": tokens.cache_write,
        "input_audio_tokens": tokens.prompt_audio,
        "output_tokens": tokens.completion,
        "output_audio_tokens": tokens.completion_audio,
    }
    usage = genai_prices.Usage(**{key: count for key, count in counts.items() if count})
    for name, provider, url in where:
        try:
            if url:
                found = genai_prices.calc_price(usage, name, provider_api_url=url)
            else:
                found = genai_prices.calc_price(usage, name, provider_id=provider)
        except LookupError:
            continue
        except ValueError as error:
            return _unpriced(f"genai-prices cannot price this usage: {error}")
        return Charge(
            # A fee per request is no completion money: guidance cannot save it.
            prompt=found.total_price - found.output_price,
            completion=found.output_price,
            source=f"genai-prices {genai_prices.__version__}, "
            f"{found.provider.id}:{found.model.id}{_dated(found)}",
        )
    return _unpriced(f"genai-prices {genai_prices.__version__} does not list {wanted}")


def _unpriced(reason: str) -> Charge:
    return Charge(prompt=None, completion=None, source=f"unpriced: {reason}")


def _dated(found: Any) -> str:
    """Say when a price was fetched or since when it holds, where genai-prices knows."""
    if found.auto_update_timestamp:
        return f" (as of {found.auto_update_timestamp.date()})"
    prices = found.model.prices
    for conditional in prices if isinstance(prices, list) else []:
        start = getattr(conditional.constraint, "start_date", None)
        if start and conditional.prices is found.model_price:
            return f" (since {start})"
    return ""
