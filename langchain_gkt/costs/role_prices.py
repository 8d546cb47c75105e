"""RolePrices: prices of a run's teacher and student, and the teacher's billing."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.costs.listed import is_nearly_cached, least_cached
from langchain_gkt.costs.price_list import CallCost
from langchain_gkt.costs.prices import FREE, MachineTime, Prices, dated_source, price_call
from langchain_gkt.costs.runs.model_runs import ModelRun
from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.costs.usage import Tokens
from langchain_gkt.errors import ConfigurationError
from langchain_gkt.metadata import Role


class RolePrices:
    """The prices of the two roles."""

    def __init__(
        self,
        *,
        teacher: Prices,
        student: Prices | MachineTime,
        tier: str | None = None,
        scenario: BillingScenario | None = None,
    ) -> None:
        """Keep the prices. The options are those of `CostTracker`.

        Raises:
            TypeError: If the tier is not a text, or the scenario is invalid.
            ValueError: If the scenario's own price or tier comes with another.
        """
        self.scenario = scenario
        if scenario is not None:
            _refuse_contradictions(scenario, teacher, tier)
            scenario.with_prefix(None)  # refuses assumed hits without the prefix
            teacher = teacher if scenario.price is None else scenario.billed_price
            tier = scenario.tier or tier
        if tier is not None and not isinstance(tier, str):
            raise TypeError(f"tier must be a name such as 'batch', not {type(tier).__name__}")
        self.tier = tier and tier.lower()
        self.teacher: Prices = teacher
        self.student: Prices | MachineTime = FREE if student is None else student

    def of(self, role: Role | None) -> Prices | MachineTime:
        """Return the price of a role."""
        return self.student if role == "student" else self.teacher

    def tier_of(self, run: ModelRun) -> str | None:
        """Return the service tier of a run, from its response, else from the user."""
        return run.tier or (self.tier if run.role == "teacher" else None)

    def billed(self, run: ModelRun, usage: UsageMetadata) -> UsageMetadata:
        """Return the billed usage of a run. In a scenario other tokens may be cached."""
        if self.scenario is None or run.role != "teacher":
            return usage
        return self.scenario.as_billed(usage)

    def is_nearly_cached(self, run: ModelRun, tokens: Tokens, money: CallCost) -> bool:
        """Whether a run's uncached prompt is just too short for the cache."""
        prefix = self.scenario.cached_prefix if self.scenario else None
        least = prefix.min_tokens if prefix else least_cached(run.model)
        cheaper = money.prompt_if_cached is not None and money.prompt_if_cached < (
            money.prompt or 0
        )
        in_reach = is_nearly_cached(tokens.prompt, least)
        return run.role == "teacher" and in_reach and cheaper and not tokens.cached

    def cost(self, run: ModelRun, usage: UsageMetadata, *, list_price: bool = False) -> CallCost:
        """Price a run by its real or estimated usage. With `MachineTime` its tokens cost nothing.

        With ``list_price`` it is priced in the standard tier, whatever its own.
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
            tier=None if list_price else self.tier_of(run),
            requested_model=run.model,
        )


def _refuse_contradictions(scenario: BillingScenario, price: Prices, tier: str | None) -> None:
    if not isinstance(scenario, BillingScenario):
        raise TypeError(
            f"scenario must be a BillingScenario(price=...), not {type(scenario).__name__}"
        )
    sources = (("teacher_price", scenario.price, price), ("tier", scenario.tier, tier))
    for name, own, argument in sources:
        if own is not None and argument is not None:
            raise ConfigurationError(
                f"{name}={argument!r} and the scenario {scenario.name!r} both say it",
                hint=f"leave {name} out",
            )
