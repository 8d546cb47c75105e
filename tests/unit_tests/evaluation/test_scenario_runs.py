"""compare() and sweep() with a billing scenario: what is paid, kept, resumed and chosen."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from support.models.exam import PRICE, pair, task

from langchain_gkt.costs import BillingScenario, CachedPrefix
from langchain_gkt.evaluation import compare, load_run, sweep

PRICED = replace(PRICE, cached_input_mtok="0", tiers={"batch": "0.5"})
BATCH = BillingScenario(price=PRICED, cached_prefix=None, tier="batch")


def test_answers_are_billed_in_the_scenario_and_a_run_keeps_to_it(tmp_path) -> None:
    paid = compare(pair(), task(2), modes=["guided"], teacher_price=PRICED)
    batch = compare(pair(), task(2), modes=["guided"], scenario=BATCH, out=tmp_path)
    assert batch.summaries["guided"].cost * 2 == paid.summaries["guided"].cost
    assert load_run(str(tmp_path)).manifest["settings"]["prices"]["scenario"]["tier"] == "batch"
    other = BillingScenario(price=PRICED, cached_prefix=None)
    with pytest.raises(ValueError, match=r"prices.scenario"):
        compare(pair(), task(2), modes=["guided"], scenario=other, out=tmp_path)
    with pytest.raises(ValueError, match="leave teacher_price out"):
        compare(pair(), task(2), teacher_price=PRICED, scenario=BATCH)


def test_what_all_prompts_begin_with_is_measured_before_anything_is_asked() -> None:
    front = CachedPrefix(hit_rate=1.0, min_tokens=1)
    scenario = BillingScenario(price=PRICED, cached_prefix=front)
    found = sweep(pair(), task(4), lengths=[0, 6], scenario=scenario)
    about = found.manifest["sessions"][-1]["prompts"]
    assert about["whole"] == about["shown"]
    assert about["whole"]["prompts"] == 4
    plain = sweep(pair(), task(4), lengths=[0, 6], teacher_price=PRICED)
    cached = int(about["whole"]["shared"] / 4 + 0.5)
    saved = plain.teacher.cost - found.teacher.cost
    assert saved == 4 * cached * PRICED.input_mtok / 1_000_000


def test_a_price_of_the_scenario_that_no_list_knows_is_refused_early() -> None:
    unknown = BillingScenario(price="openai:gpt-99", cached_prefix=None)
    with pytest.raises(ValueError, match=r"scenario.price='openai:gpt-99' is unpriced"):
        compare(pair(), task(2), scenario=unknown)


def test_nested_prices_are_described_alike_on_every_day() -> None:
    from langchain_gkt.costs.prices import describe_price

    batch = [replace(PRICE, as_of=day) for day in ("2026-11-28", "2026-11-29")]
    described = [describe_price(replace(PRICE, tiers={"batch": one})) for one in batch]
    assert described[0] == described[1]
    assert Decimal(described[0]["input_mtok"]) == PRICE.input_mtok
