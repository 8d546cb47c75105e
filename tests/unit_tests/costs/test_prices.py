from __future__ import annotations

import builtins
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_gkt import CostTracker, MachineTime, Price
from langchain_gkt.costs.prices import price_call

OPENAI = "https://api.openai.com/v1"


def usage(prompt: int = 1000, completion: int = 100, **details: Any) -> Any:
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


def priced(price: Any = None, used: Any = None, **given: Any) -> Any:
    asked = {"provider": "openai", "model": "gpt-4o-mini", "base_url": None, **given}
    return price_call(price, used or usage(), **asked)


def test_the_users_price_comes_first() -> None:
    money = priced(Price("1", "2", source="contract", as_of="2026-02-03"), base_url=OPENAI)
    assert (money.prompt, money.completion) == (Decimal("0.001"), Decimal("0.0002"))
    assert money.source == "contract of 2026-02-03"


def test_the_servers_address_comes_before_the_providers_id() -> None:
    today = f"{datetime.now(timezone.utc):%Y-%m}"
    here = priced(provider="anthropic", base_url=OPENAI).source
    assert here.startswith("openai:gpt-4o-mini, genai-prices ")
    assert "by server address" in here
    assert today in here
    elsewhere = priced(base_url="http://127.0.0.1:1/v1")
    assert "by provider id, because http://127.0.0.1:1/v1 is no address" in elsewhere.source
    assert elsewhere.prompt == priced(base_url=OPENAI).prompt == Decimal("0.00015")
    assert "by provider id" in priced().source


def test_the_name_asked_for_is_tried_after_the_name_that_answered() -> None:
    assert priced(model="my-deployment", requested_model="gpt-4o-mini").prompt > 0
    assert priced(model="gpt-4o-mini", requested_model="my-deployment").prompt > 0


@pytest.mark.parametrize("model", ["whisper-1", "nobody-knows", "text-embedding-3-small"])
def test_what_has_no_token_price_is_unpriced_and_never_0(model) -> None:
    money = priced(model=model)
    assert money.prompt is money.completion is None
    assert money.source.startswith(f"unpriced: no known price of {model!r} in genai-prices ")


def test_without_genai_prices_it_says_what_to_install(monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "genai_prices":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    money = priced()
    assert money.prompt is None
    assert 'install "langchain-gkt[prices]"' in money.source


def test_cached_prompts_and_what_full_caching_would_cost() -> None:
    used = usage(1000, 100, input_token_details={"cache_read": 400})
    assert priced(Price("1", "2"), used).prompt_if_cached is None  # no price of it is known
    own = priced(Price("1", "2", "0.1"), used)
    assert (own.prompt, own.prompt_if_cached) == (Decimal("0.00064"), Decimal("0.0001"))
    listed = priced(None, used)
    assert listed.prompt_if_cached == Decimal("0.000075")
    assert listed.prompt == Decimal("0.00012")
    assert priced(None, usage(10, 1, input_token_details={"cache_read": 99})).prompt > 0


def test_a_tier_without_a_price_of_its_own_is_named() -> None:
    money = priced(tier="flex")
    assert "(tier flex: no such price, standard used)" in money.source


def test_machine_time_is_exact() -> None:
    price = MachineTime(usd_per_hour="3.60", as_of="2026-01-01")
    assert price.cost(2.5) == Decimal("0.0025")


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: Price(0.15, 1), TypeError, r"Price\.input_mtok .* not float"),
        (lambda: Price(1, -2), ValueError, r"Price\.output_mtok must be 0 or more"),
        (lambda: Price("cheap", 1), ValueError, "is not a number"),
        (lambda: Price(1, 1, "nan"), ValueError, "cached_input_mtok"),
        (lambda: CostTracker(teacher_price=0.1), TypeError, "teacher_price must be a Price"),
        (lambda: MachineTime(usd_per_hour=1.5), TypeError, r"MachineTime\.usd_per_hour .*float"),
        (lambda: MachineTime(usd_per_hour="-1"), ValueError, "0 or more"),
        (
            lambda: CostTracker(teacher_price=MachineTime(usd_per_hour=1)),
            TypeError,
            "teacher_price must be a Price; an hour of machine time is a student's price",
        ),
        (lambda: CostTracker(teacher_price={"m": 0.1}), TypeError, r"teacher_price\['m'\] must be"),
        (lambda: CostTracker(teacher_price={"m": None}), TypeError, "must map a model's name"),
        (lambda: CostTracker(student_price=1), TypeError, "student_price must be a Price"),
    ],
)
def test_bad_prices_are_named(make, kind, says) -> None:
    with pytest.raises(kind, match=says):
        make()


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.one_of(st.text(max_size=8), st.decimals(), st.integers(), st.floats(), st.booleans()),
    st.integers(0, 10**7),
)
def test_any_amount_is_money_or_refused_by_name(amount, tokens) -> None:
    try:
        price = Price(amount, 1)
    except (TypeError, ValueError) as error:
        assert "Price.input_mtok" in str(error)
        return
    assert price.input_mtok == Decimal(amount) >= 0
    assert priced(price, usage(tokens)).prompt == Decimal(amount) * tokens / 10**6
