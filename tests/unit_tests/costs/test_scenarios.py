from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_gkt import Budget, CostTracker, Price, track_costs
from langchain_gkt.costs import BillingScenario, CachedPrefix, scenarios_of
from langchain_gkt.costs.listed import least_cached, listed_price
from langchain_gkt.costs.scenarios import check_prefix

FULL = Price("2.50", "15", cached_input_mtok="0.25", cache_write_mtok="3.125")


class Billed(BaseChatModel):
    """A teacher that reports a prompt of 1,124 tokens, 200 of them cached."""

    model_name: str = "billed-2026-11-20"
    prompt: int = 1124
    cached: int = 200

    @property
    def _llm_type(self) -> str:
        return "billed"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        usage: Any = {
            "input_tokens": self.prompt,
            "output_tokens": 110,
            "total_tokens": self.prompt + 110,
            "input_token_details": {"cache_read": self.cached},
        }
        message = AIMessage("12", usage_metadata=usage, response_metadata={"model_name": "m"})
        return ChatResult(generations=[ChatGeneration(message=message)])


def billed(scenario: BillingScenario, **fields: Any) -> dict[str, Any]:
    tracker = CostTracker(scenario=scenario)
    config: Any = {"callbacks": [tracker], "metadata": {"gkt_role": "teacher"}}
    Billed(**fields).invoke("?", config)
    found: dict[str, Any] = tracker.report().to_dict()
    return {**found["teacher"], "notes": found["notes"], "scenario": found["scenario"]}


def test_the_issues_example_costs_48_percent_of_its_uncached_bill() -> None:
    prefix = CachedPrefix(tokens=1024, hit_rate=1.0)
    cheap = billed(BillingScenario(price=FULL, cached_prefix=prefix))
    full = billed(BillingScenario(price=FULL, cached_prefix=None))
    assert Decimal(full["cost"]) == Decimal("0.00446")
    assert f"{Decimal(cheap['cost']) / Decimal(full['cost']):.0%}" == "48%"
    assert (cheap["uncached_prompt_tokens"], cheap["cached_prompt_tokens"]) == (100, 1024)
    assert (cheap["uncached_prompt_cost"], cheap["cached_prompt_cost"]) == ("0.000250", "0.000256")
    assert any("1,024 cached (0.000256 $)" in note for note in cheap["notes"])


def test_misses_write_the_prefix_at_its_own_rate() -> None:
    prefix = CachedPrefix(tokens=1024, hit_rate=0.75, write_rate="1.25", read_rate="0.1")
    found = billed(BillingScenario(price=Price("2.50", "15"), cached_prefix=prefix))
    assert (found["cached_prompt_tokens"], found["written_prompt_tokens"]) == (768, 256)
    assert Decimal(found["written_prompt_cost"]) == 256 * Decimal("3.125") / 1_000_000
    assert Decimal(found["prompt_cost"]) == sum(
        Decimal(found[f"{kind}_prompt_cost"]) for kind in ("uncached", "cached", "written")
    )


def test_what_is_measured_stays_what_the_provider_reports() -> None:
    found = billed(BillingScenario(price=FULL))
    assert (found["cached_prompt_tokens"], found["uncached_prompt_tokens"]) == (200, 924)
    assert found["scenario"]["name"] == "list price"


def test_too_short_a_prefix_is_not_cached() -> None:
    prefix = CachedPrefix(tokens=958, hit_rate=1.0)
    assert billed(BillingScenario(price=FULL, cached_prefix=prefix))["cached_prompt_tokens"] == 0


@pytest.mark.parametrize(("prompt", "near"), [(700, 0), (958, 1), (1024, 0)])
def test_a_prompt_that_is_nearly_cached_is_pointed_out(prompt: int, near: int) -> None:
    found = billed(BillingScenario(price=FULL), prompt=prompt, cached=0)
    said = [note for note in found["notes"] if "just too short" in note]
    assert (found["nearly_cached_calls"], len(said)) == (near, near)
    assert all(f"prompts of {prompt} tokens" in note for note in said)


def test_a_batch_is_billed_at_its_rate_and_the_naive_way_is_not() -> None:
    halved = BillingScenario(price=FULL, cached_prefix=None, tier="Batch", tier_rate=0.5)
    assert Decimal(billed(halved)["cost"]) == Decimal("0.00223")
    assert halved.name == "batch"


def test_ready_made_scenarios_come_from_the_price_list() -> None:
    plain, cached, batch, both = scenarios_of("openai:gpt-5-mini", tokens=1024)
    costs = [Decimal(billed(one)["cost"]) for one in (plain, cached, batch, both)]
    assert costs[3] < costs[1] < costs[0]
    assert costs[2] < costs[0]
    assert least_cached("anthropic:claude-haiku-4-5") == 4096
    with pytest.raises(ValueError, match="newest price is of 20"):
        listed_price("openai:gpt-99")


def test_the_costs_of_a_call_are_told_and_more_cached_than_prompted_is_refused() -> None:
    found = {one.name: one.cost(1124, 110) for one in scenarios_of("openai:gpt-4o-mini")}
    assert found["list price"] == found["cached prefix"]  # no prefix is known
    assert found["batch"] * 2 == found["list price"]
    assert prefixed(1024).cost(1124, 110) == Decimal("0.002156")
    with pytest.raises(ValueError, match="tokens=1024 is more than the 900 tokens"):
        prefixed(1024).cost(900, 110)
    with pytest.raises(ValueError, match="no price of a call is known"):
        BillingScenario().cost(1, 1)


def test_of_several_listed_prices_the_one_that_is_billed_is_taken() -> None:
    listed = listed_price("mistral:mistral-large-4")
    plain, _, batch, _ = scenarios_of("mistral:mistral-large-4")
    own = [BillingScenario(price=listed, tier=tier).cost(10**6, 10**6) for tier in (None, "batch")]
    assert own == [plain.cost(10**6, 10**6), batch.cost(10**6, 10**6)]


def test_missing_rates_and_an_old_price_are_said() -> None:
    prefix = CachedPrefix(tokens=1024, hit_rate=0.5)
    scenario = BillingScenario(price=Price("1", "2"), cached_prefix=prefix, tier="batch")
    found = " ".join(scenario.notes())
    for words in ("no price in tier batch", "no price of cached tokens", "no price of cache wri"):
        assert words in found
    sources = billed(scenario)["price_source"]
    assert "cached tokens as plain input" in sources
    assert "cache writes as plain input" in sources
    tracker = CostTracker(teacher_price=Price("1", "2", as_of="2026-01-01"))
    Dated().invoke("?", {"callbacks": [tracker], "metadata": {"gkt_role": "teacher"}})
    assert "older than m-2026-11-20" in str(tracker.report().teacher.sources)


class Dated(Billed):
    def _generate(self, *given: Any, **_: Any) -> Any:
        found = super()._generate(*given)
        found.generations[0].message.response_metadata["model_name"] = "m-2026-11-20"
        return found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CachedPrefix(hit_rate=1.5), "CachedPrefix.hit_rate must be a share from 0 to 1"),
        (lambda: CachedPrefix(hit_rate=-0.1), "CachedPrefix.hit_rate"),
        (lambda: CachedPrefix(read_rate=1.1), "CachedPrefix.read_rate=1.1 would cost more"),
        (lambda: CachedPrefix(write_rate="-1"), "CachedPrefix.write_rate must be a share"),
        (lambda: CachedPrefix(tokens=0), "CachedPrefix.tokens must be a whole number of 1"),
        (lambda: CachedPrefix(hitrate=1), "did you mean"),
        (lambda: BillingScenario(price=FULL, tier="batch", tier_rate=2), "tier_rate=2 would make"),
        (lambda: BillingScenario(price=FULL, tier_rate=0.5), "name it: tier="),
        (lambda: BillingScenario(cached_prefix=CachedPrefix(read_rate=0.1)), "price must be"),
        (lambda: check_prefix(prefixed(2000), 1124), "tokens=2000 is more than the 1124"),
        (lambda: CostTracker(scenario=prefixed(None)), "give CachedPrefix(tokens=...)"),
        (lambda: CostTracker(scenario=prefixed(9), teacher_price=FULL), "leave teacher_price out"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_field(make: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as refused:
        make()
    assert words in str(refused.value)


def prefixed(tokens: int | None) -> BillingScenario:
    return BillingScenario(price=FULL, cached_prefix=CachedPrefix(tokens=tokens, hit_rate=1.0))


def test_blocks_take_a_scenario_and_an_unfit_one_is_refused() -> None:
    with pytest.raises(TypeError, match="scenario must be a BillingScenario"):
        CostTracker(scenario="batch")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="scenario must be a BillingScenario"):
        CostTracker(scenario="batch", budget=Budget(tokens=9))  # type: ignore[arg-type]
    with track_costs(scenario=prefixed(1024)) as costs:
        assert costs.report().to_dict()["scenario"]["cached_prefix"]["tokens"] == 1024
