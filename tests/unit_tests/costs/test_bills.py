"""Bills to the cent: cache writes, details of the raw report, tiers, and what nobody knows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from support.models.fakes import WordTeacher, make

from langchain_gkt import Budget, BudgetExceeded, CostTracker, MachineTime, Price, track_costs


class Fake(BaseChatModel):
    """A teacher that says what it is told, under the name of a listed model."""

    says: Any
    provider: str = "anthropic"
    listed: str = "claude-sonnet-4-5"
    max_tokens: int | None = None

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": self.provider, "ls_model_name": self.listed}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.says)])


def said(details: Any = None, **metadata: Any) -> AIMessage:
    usage: Any = {"input_tokens": 10_000, "output_tokens": 5, "total_tokens": 10_005}
    if details:
        usage["input_token_details"] = details
    return AIMessage("Six apples.", usage_metadata=usage, **metadata)


def bill(message: AIMessage, *, fields: Any = None, **given: Any) -> Any:
    """What the teacher's one call costs."""
    chain = make(Fake(says=message, **(fields or {})), WordTeacher(answer="And so on."))
    with track_costs(**given) as costs:
        chain.invoke("How many?", mode="teacher")
    return costs.report().teacher


CACHE_WRITES = [
    ({"cache_creation": 9_000}, "0.03675"),
    ({"cache_creation": 0, "ephemeral_5m_input_tokens": 9_000}, "0.03675"),
    ({"cache_creation": 9_000, "ephemeral_5m_input_tokens": 9_000}, "0.03675"),
    ({"cache_creation": 0, "ephemeral_1h_input_tokens": 9_000}, "0.057"),
    ({"ephemeral_5m_input_tokens": 5_000, "ephemeral_1h_input_tokens": 4_000}, "0.04575"),
    ({"cache_read": 1_000, "ephemeral_5m_input_tokens": 9_000}, "0.03405"),
]
OWN = Price("3", "15", "0.3", cache_write_mtok="3.75", cache_write_1h_mtok="6")


@pytest.mark.parametrize("price", [None, OWN])
@pytest.mark.parametrize(("details", "money"), CACHE_WRITES)
def test_cache_writes_cost_what_their_lifetime_does(details, money, price) -> None:
    found = bill(said(details), teacher_price=price)
    assert found.prompt_cost == Decimal(money)
    assert found.unknown_details == set()


def test_a_price_without_a_rate_for_cache_writes_says_so() -> None:
    found = bill(said({"ephemeral_5m_input_tokens": 9_000}), teacher_price=Price("3", "15"))
    assert found.prompt_cost == Decimal("0.03")
    assert "(cache writes as plain input: no cache_write_mtok)" in str(found.sources)


UNKNOWN = {"ephemeral_24h_input_tokens": 9_000}
INPUT = {"prompt_tokens": 10_000}


@pytest.mark.parametrize(
    "message",
    [
        said(UNKNOWN),
        said(response_metadata={"token_usage": {**INPUT, "prompt_tokens_details": UNKNOWN}}),
        said(response_metadata={"usage": {"input_tokens": 10_000, "cache_creation": UNKNOWN}}),
        said(UNKNOWN, response_metadata={"token_usage": {**INPUT, "input_token_details": UNKNOWN}}),
    ],
)
def test_an_unknown_detail_is_told_once(message) -> None:
    chain = make(Fake(says=message), WordTeacher(answer="And so on."))
    with track_costs() as costs, pytest.warns(UserWarning, match="ephemeral_24h") as warned:
        chain.invoke("How many?", mode="teacher")
        chain.invoke("How many?", mode="teacher")
    assert len([one for one in warned if "ephemeral_24h" in str(one.message)]) == 1
    data = costs.report().to_dict()
    assert data["teacher"]["unknown_details"] == ["ephemeral_24h_input_tokens"]
    assert data["teacher"]["prompt_cost"] == "0.060000"
    assert any("ephemeral_24h_input_tokens; billed as plain" in note for note in data["notes"])


@pytest.mark.parametrize(
    "raw",
    [
        {"cache_tokens_30m": 9_000},
        {"completion_tokens_details": {"drafted_tokens": 4}},
        {"prompt_tokens_details": {"cached_tokens": 9_000, "image_tokens": 5}},
    ],
)
def test_an_unknown_detail_beside_known_ones(raw) -> None:
    message = said(response_metadata={"token_usage": {**INPUT, **raw}})
    with pytest.warns(UserWarning, match="cache_tokens_30m|drafted_tokens|image_tokens"):
        found = bill(message, teacher_price=Price("2", "10", "0.2"))
    assert found.prompt_cost == Decimal("0.0038" if "prompt_tokens_details" in raw else "0.02")


def test_details_that_cost_what_any_token_does_are_not_told() -> None:
    plain = {"accepted_prediction_tokens": 4, "rejected_prediction_tokens": 1, "audio_tokens": 0}
    raw = {**INPUT, "prompt_tokens_details": {"text_tokens": 9}, "prompt_cache_miss_tokens": 9}
    message = said(response_metadata={"token_usage": {**raw, "completion_tokens_details": plain}})
    assert bill(message).unknown_details == set()


def test_details_that_only_the_raw_report_has() -> None:
    raw = {"prompt_tokens": 10_000, "prompt_tokens_details": {"cached_tokens": 9_000}}
    message = said(response_metadata={"token_usage": raw})
    found = bill(message, teacher_price=Price("2", "10", "0.2"))
    assert (found.prompt_cost, found.cached_prompt_tokens) == (Decimal("0.0038"), 9_000)
    taught = make(
        Fake(says=said(response_metadata={"token_usage": raw})),
        WordTeacher(answer="And so on."),
    ).invoke("How many?", mode="teacher")
    details = taught.response_metadata["gkt"]["teacher_usage"]["input_token_details"]
    assert details == {"cache_read": 9_000}


@pytest.mark.parametrize(
    ("metadata", "given", "money"),
    [
        ({}, {}, "0.03"),
        ({}, {"tier": "batch"}, "0.015"),
        ({"usage": {"service_tier": "batch"}}, {}, "0.015"),
        ({"usage": {"service_tier": "standard"}}, {"tier": "batch"}, "0.015"),
        ({"usage": {"service_tier": "batch"}}, {"tier": "flex"}, "0.015"),
        ({}, {"tier": "batch", "teacher_price": Price("3", "15", tiers={"batch": "0.5"})}, "0.015"),
        (
            {"service_tier": "flex"},
            {"teacher_price": Price("3", "15", tiers={"flex": Price("1", "1")})},
            "0.01",
        ),
        ({"service_tier": "flex"}, {"teacher_price": Price("3", "15")}, "0.03"),
    ],
)
def test_a_tier_has_its_own_price(metadata, given, money) -> None:
    found = bill(said(response_metadata=metadata), **given)
    assert found.prompt_cost == Decimal(money)
    no_price = given.get("teacher_price") == Price("3", "15")
    assert ("no such price" in str(found.sources)) is no_price


def test_a_listed_tier_of_openai() -> None:
    listed = {"provider": "openai", "listed": "gpt-5-mini"}
    flex = bill(said(response_metadata={"service_tier": "flex"}), fields=listed)
    batch = bill(said(), fields=listed, tier="BATCH")
    assert flex.prompt_cost == batch.prompt_cost == bill(said(), fields=listed).prompt_cost / 2


def test_groqs_standard_tier_is_no_tier_of_its_own() -> None:
    said_so = bill(said(response_metadata={"service_tier": "on_demand"}), tier="batch")
    assert (said_so.prompt_cost, "tier batch" in str(said_so.sources)) == (Decimal("0.015"), True)
    assert Price("1", "2", tiers={"Batch": "0.5"}).of_tier("BATCH") == Price("0.5", "1.0")


class Asking(Fake):
    """A client that asks for a tier."""

    service_tier: str | None = None


@pytest.mark.parametrize(
    ("tier", "admitted"), [(None, 1), ("auto", 1), ("flex", 1), ("priority", 0)]
)
def test_a_budget_reserves_the_tier_that_the_client_asks_for(tier, admitted) -> None:
    teacher = Asking(says=said(), max_tokens=1_000, service_tier=tier)
    price = Price("0", "15", tiers={"flex": "0.5", "priority": "2"})
    chain = make(teacher, WordTeacher(answer="And so on."))
    with track_costs(
        teacher_price=price, budget=Budget(usd="0.02", on_exceeded="student")
    ) as costs:
        if admitted:
            chain.invoke("How many?", mode="teacher")
        else:
            with pytest.raises(BudgetExceeded, match=r"may take up to 0\.03"):
                chain.invoke("How many?", mode="teacher")
    assert costs.report().teacher.calls == admitted


def test_a_tier_is_the_teachers_alone() -> None:
    cut = said(response_metadata={"finish_reason": "length"})
    chain = make(Fake(says=cut), WordTeacher(answer="And so on. " * 9), guidance_tokens=5)
    price = Price("1", "1", tiers={"batch": "0"})
    with track_costs(teacher_price=price, student_price=price, tier="batch") as costs:
        chain.invoke("How many?")
    report = costs.report()
    assert report.teacher.known_cost == 0 < report.student.known_cost


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Price("1", "2", cached_mtok="0.4"), "'cached_mtok'; did you mean 'cached_input_"),
        (lambda: Budget(usd="5", per_call="0.1"), "'per_call'; did you mean 'per_call_usd'"),
        (lambda: MachineTime(usd_per_hour="1", asof="x"), "'asof'; did you mean 'as_of'"),
        (lambda: Price("1", "2", tiers={"batch": 0.5}), r"Price.tiers\['batch'\] .* not float"),
        (lambda: Price("1", "2", tiers="batch"), "Price.tiers must map a tier"),
        (lambda: CostTracker(tier=1), "tier must be a name such as 'batch', not int"),
    ],
)
def test_what_is_not_known_is_refused(make, says) -> None:
    with pytest.raises(TypeError, match=says):
        make()


def test_usage_in_parts_is_unreported_and_the_text_whole() -> None:
    text = "Six apples and four more make ten, two are eaten, so eight are left in all."
    part = AIMessage(
        text,
        usage_metadata={"input_tokens": 9, "output_tokens": 0, "total_tokens": 9},
        response_metadata={"finish_reason": "stop"},
    )
    chain = make(Fake(says=part), WordTeacher(answer="And."), guidance_tokens=30)
    with track_costs() as costs:
        message = chain.invoke("How many?")  # a warning would be an error here
    assert message.text == text
    assert costs.report().teacher.unreported_calls == 1
