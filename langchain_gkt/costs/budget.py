"""Budget: a limit that is checked before the teacher is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from langchain_core.messages import BaseMessage
from pydantic import ConfigDict, PlainValidator
from pydantic.dataclasses import dataclass

from langchain_gkt.costs.price_list import CallCost
from langchain_gkt.costs.prices import Prices, Usd, check_price
from langchain_gkt.costs.totals import UsageTotals, amount
from langchain_gkt.costs.usage import TokenRate
from langchain_gkt.errors import BudgetExceeded, KnownFields
from langchain_gkt.providers.limits import LIMIT_FIELDS

DEFAULT_COMPLETION_LIMIT = 4096
"""Completion tokens to reserve for a call of a model without a limit."""

_PROMPT_MARGIN = 1.25
_TOKENS_PER_MESSAGE = 8


def _tokens(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Budget.tokens must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"Budget.tokens must be 0 or more, not {value}")
    return value


def _prices(value: Any) -> Any:
    check_price(value, "Budget.teacher_price")
    return value


@dataclass(frozen=True, kw_only=True, config=ConfigDict(title="Budget"))
class Budget(KnownFields):
    """The spending limit.

    Before each teacher call, the budget reserves its highest possible cost (an upper estimate of
    the prompt and all completion tokens it may write). A call that could pass the budget is not
    made. When the call ends, its real bill replaces the reservation.

    Attributes:
        usd: Maximum US dollars for both models together, all calls summed. None for no limit.
        per_call_usd: Maximum US dollars of the teacher in one call of the chain.
        tokens: Maximum tokens of the teacher, prompt and completion, all calls summed.
        on_exceeded: ``raise`` `BudgetExceeded`, or let the ``student`` answer alone.
        teacher_price: As for `CostTracker`. For a budget of the chain itself.
    """

    usd: Usd | None = None
    per_call_usd: Usd | None = None
    tokens: Annotated[int, PlainValidator(_tokens)] | None = None
    on_exceeded: Literal["raise", "student"] = "raise"
    teacher_price: Annotated[Prices, PlainValidator(_prices)] = None

    def __post_init__(self) -> None:
        """Refuse a budget without a limit."""
        if self.usd is None and self.per_call_usd is None and self.tokens is None:
            raise ValueError("Budget limits nothing; give usd=, per_call_usd= or tokens=")

    @property
    def needs_prices(self) -> bool:
        """Whether the budget is in money."""
        return self.usd is not None or self.per_call_usd is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reservation:
    """The highest possible cost of one teacher call.

    Attributes:
        tokens: Prompt and completion tokens.
        usd: US dollars. None if the budget is not in money.
    """

    tokens: int
    usd: Decimal | None


class Ledger:
    """A budget's spent and reserved amounts. Its owner holds a lock around each call."""

    def __init__(self, budget: Budget) -> None:
        """Start with nothing spent."""
        self.budget = budget
        self.refused = 0
        self._reservations: dict[str, Reservation] = {}
        self._spent = UsageTotals()
        self._teacher_tokens = 0
        self._unread_usd = Decimal(0)
        self._carried_usd = Decimal(0)

    def spend(self, role: str, counts: UsageTotals, call_id: str) -> None:
        """Add a finished run, or its estimate if its usage is unknown.

        If a call failed and may have been billed, only its reservation is known. That counts as
        spent.
        """
        self._spent.add(counts)
        if role != "teacher":
            return
        tokens = counts.prompt_tokens + counts.completion_tokens
        tokens += counts.unreported_prompt_tokens + counts.unreported_completion_tokens
        most = self._reservations.get(call_id)
        if most is not None and counts.failed_calls and counts.unreported_calls:
            spent = counts.known_cost + counts.unreported_cost
            self._unread_usd += max(Decimal(0), (most.usd or spent) - spent)
            tokens = max(tokens, most.tokens)
        self._teacher_tokens += tokens

    def carry(self, spent: Mapping[str, Any]) -> None:
        """Count earlier spending from elsewhere, as the ``to_dict`` of that ledger tells it."""
        self._carried_usd += Decimal(spent.get("spent_usd") or 0)
        self._teacher_tokens += int(spent.get("spent_tokens") or 0)

    def release(self, call_id: str) -> None:
        """Drop a reservation, because its call ended or was never made."""
        self._reservations.pop(call_id, None)

    def release_all(self) -> None:
        """Drop all reservations. The calls of a pickled budget are another process's."""
        self._reservations.clear()

    def reserve(self, call_id: str, most: Reservation, spent_in_call: Decimal) -> None:
        """Reserve the most that a call can cost.

        ``spent_in_call`` are the US dollars that the teacher has already cost in this chain call.

        Raises:
            BudgetExceeded: If that could pass the budget.
        """
        budget, usd = self.budget, most.usd or Decimal(0)
        reserved_usd, reserved_tokens = self._reserved(except_for=call_id)
        checks: list[tuple[str, Any, Any, Any]] = [
            ("usd", budget.usd, self.spent_usd + reserved_usd, usd),
            ("per_call_usd", budget.per_call_usd, spent_in_call, usd),
            ("tokens", budget.tokens, self._teacher_tokens + reserved_tokens, most.tokens),
        ]
        for name, limit, used, more in checks:
            if limit is not None and used + more > limit:
                self.refused += 1
                raise BudgetExceeded(
                    f"the teacher is not asked: Budget.{name}={limit} could be passed; {used} is "
                    f"spent or reserved and this call may take up to {more}. Raise the budget, "
                    "lower guidance_tokens, or let the student go on alone with "
                    "Budget(on_exceeded='student').",
                    student_may_answer=budget.on_exceeded == "student",
                )
        self._reservations[call_id] = most

    def _reserved(self, except_for: str | None = None) -> tuple[Decimal, int]:
        """Return the US dollars and tokens of the open reservations."""
        kept = [most for call_id, most in self._reservations.items() if call_id != except_for]
        usd = sum((most.usd or Decimal(0) for most in kept), Decimal(0))
        return usd, sum(most.tokens for most in kept)

    @property
    def spent_usd(self) -> Decimal:
        """US dollars of both models. For unreported calls see `spend`."""
        own = self._spent.known_cost + self._spent.unreported_cost + self._unread_usd
        return own + self._carried_usd

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a report."""
        reserved_usd, reserved_tokens = self._reserved()
        money = {
            name: None if (value := getattr(self.budget, name)) is None else amount(value)
            for name in ("usd", "per_call_usd")
        }
        return {
            **money,
            "tokens": self.budget.tokens,
            "on_exceeded": self.budget.on_exceeded,
            "spent_usd": amount(self.spent_usd),
            "spent_tokens": self._teacher_tokens,
            "reserved_usd": amount(reserved_usd),
            "reserved_tokens": reserved_tokens,
            "refused_calls": self.refused,
        }


def price_for(budget: Budget | None, price: Prices, scenario: Any) -> Prices:
    """Return the teacher's price: the user's, else the budget's, unless a scenario has one."""
    if price is None and budget is not None and not getattr(scenario, "price", None):
        return budget.teacher_price
    return price


def completion_limit(model: Any) -> int:
    """Return the maximum completion tokens of a call that sets no limit, by the model's own."""
    fields = (getattr(model, name, None) for name in LIMIT_FIELDS)
    own = (limit for limit in fields if isinstance(limit, int) and limit > 0)
    return next(own, DEFAULT_COMPLETION_LIMIT)


def max_prompt_tokens(messages: Sequence[BaseMessage], chars: int, rate: TokenRate | None) -> int:
    """Return an upper estimate of a prompt's tokens.

    It goes by the highest rate of any earlier prompt, with a margin. Before the first, it is a
    token for every two bytes.
    """
    extra = _TOKENS_PER_MESSAGE * len(messages)
    if rate is not None and rate.max_prompt_rate:
        return round(chars * rate.max_prompt_rate * _PROMPT_MARGIN) + extra
    size = sum(len(str(message.text).encode()) for message in messages)
    return max(chars, size) // 2 + extra


def known_cost(cost: CallCost, model: str) -> Decimal:
    """Return the US dollars of a call.

    Raises:
        BudgetExceeded: If the model is unpriced, so that a budget in money cannot be kept.
    """
    if cost.prompt is None or cost.completion is None:
        raise BudgetExceeded(
            "the teacher is not asked: a Budget in US dollars needs its price, but "
            f"{model!r} is {cost.source}; give teacher_price=, or Budget(tokens=...)"
        )
    return cost.prompt + cost.completion
