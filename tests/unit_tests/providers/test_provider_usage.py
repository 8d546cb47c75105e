"""What a provider reports of a call: whole, in parts, in two places, or not at all."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from langchain_gkt.providers.usage import believable, completed, service_tier


def usage(prompt=10, completion=5, **details):
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": (prompt or 0) + (completion or 0),
        **details,
    }


@pytest.mark.parametrize(
    "part",
    [
        usage(0, 0),
        usage(None, None),
        usage(0, 5),
        usage(None, 5),
        usage(10, 0),
        usage(10, None),
        usage(10, 1),  # what the first chunk of a stream says
        {"output_tokens": 5},
        {"total_tokens": 15},
    ],
)
def test_a_part_is_no_report_and_no_lie(part) -> None:
    assert believable(part, wrote=True, chars=400) == (None, None)


def test_what_cannot_be_true_is_named() -> None:
    assert believable(usage(-1, 5), wrote=True) == (None, "input_tokens=-1")
    assert believable({**usage(), "output_tokens": "5"}, wrote=True)[1] == "output_tokens='5'"
    assert believable(usage(10, 0), wrote=False) == (usage(10, 0), None)


RAW = {
    "openai": (
        {"prompt_tokens": 10_000, "prompt_tokens_details": {"cached_tokens": 9_000}},
        {"cache_read": 9_000},
    ),
    "responses": (
        {"input_tokens": 10_000, "input_tokens_details": {"cached_tokens": 9_000}},
        {"cache_read": 9_000},
    ),
    "details alone": ({"prompt_tokens_details": {"cached_tokens": 9_000}}, {"cache_read": 9_000}),
    "deepseek": (
        {"prompt_tokens": 10_000, "prompt_cache_hit_tokens": 9_000},
        {"cache_read": 9_000},
    ),
    "anthropic": (
        {
            "input_tokens": 1_000,
            "cache_read_input_tokens": 4_000,
            "cache_creation_input_tokens": 5_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 5_000},
        },
        {"cache_read": 4_000, "cache_creation": 5_000, "ephemeral_1h_input_tokens": 5_000},
    ),
    "bedrock": (
        {"inputTokens": 1_000, "cacheReadInputTokens": 4_000, "cacheWriteInputTokens": 5_000},
        {"cache_read": 4_000, "cache_creation": 5_000},
    ),
    "bedrock, as invoked": (
        {"prompt_tokens": 10_000, "cache_write_input_tokens": 5_000},
        {"cache_creation": 5_000},
    ),
    "google": (
        {"prompt_token_count": 10_000, "cached_content_token_count": 9_000},
        {"cache_read": 9_000},
    ),
}


@pytest.mark.parametrize("name", ["token_usage", "usage"])
@pytest.mark.parametrize("kind", RAW)
def test_details_come_from_the_providers_own_report(kind, name) -> None:
    raw, details = RAW[kind]
    whole = completed(usage(10_000, 100), {name: raw})
    assert whole["input_token_details"] == details
    assert (whole["input_tokens"], whole["output_tokens"]) == (10_000, 100)


class LiteLLMUsage(BaseModel):
    prompt_tokens: int = 10
    completion_tokens: int = 5
    prompt_tokens_details: dict[str, int] = {"cached_tokens": 4}


def test_a_report_may_be_an_object() -> None:
    whole = completed(usage(), {"token_usage": LiteLLMUsage()})
    assert whole["input_token_details"] == {"cache_read": 4}


def test_google_counts_reasoning_beside_the_answer() -> None:
    raw = {"prompt_token_count": 10, "candidates_token_count": 2, "thoughts_token_count": 3}
    for told in (None, usage(10, 5)):
        whole = completed(told, {"usage_metadata": raw})
        assert (whole["input_tokens"], whole["output_tokens"]) == (10, 5)
        assert whole["output_token_details"] == {"reasoning": 3}


def test_counts_come_from_there_too() -> None:
    raw = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    for lacking in (None, {}, usage(0, 0), usage(10, 0), usage(None, 5)):
        whole = believable(completed(lacking, None, {"token_usage": raw}), wrote=True)[0]
        assert (whole["input_tokens"], whole["output_tokens"]) == (10, 5)
    answered = {"completion_tokens_details": {"reasoning_tokens": 3}}
    whole = completed(usage(), {"token_usage": answered})
    assert whole["output_token_details"] == {"reasoning": 3}


def test_what_the_client_said_is_kept() -> None:
    raw = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
    known = usage(10, 5, input_token_details={"cache_read": 3})
    assert completed(known, {"token_usage": raw}) == known
    tiered = usage(10, 5, input_token_details={"flex_cache_read": 4, "flex": 6})
    assert completed(tiered, {"token_usage": raw}) == tiered
    assert completed(usage(99, 5), {"token_usage": raw}) == usage(99, 5)  # of another call
    assert completed(usage(), {"token_usage": "none"}, {"usage": None}) == usage()


@pytest.mark.parametrize(
    ("metadata", "tier"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"usage": {"service_tier": "batch"}}, "batch"),
        ({"usage": {"service_tier": "standard", "speed": "fast"}}, "fast"),
        ({"service_tier": "default", "token_usage": {"service_tier": "priority"}}, "priority"),
        ({"service_tier": "flexflex"}, "flex"),  # chunks of a stream, joined
        ({"service_tier": "standardstandard"}, None),
        ({"service_tier": "on_demandon_demand"}, None),  # as Groq names the standard one
        ({"service_tier": "autoflex"}, "flex"),  # asked for, and given
        ({"service_tier": "performanceperformance"}, "performance"),
        ({"serviceTier": {"type": "priority"}}, "priority"),  # Bedrock
        ({"serviceTier": {"type": "default"}}, None),
        ({"usage_metadata": {"traffic_type": "ON_DEMAND_FLEX"}}, "flex"),  # Vertex AI
        ({"usage_metadata": {"traffic_type": "ON_DEMAND"}}, None),
        ({"traffic_type": "PROVISIONED_THROUGHPUT"}, "provisioned_throughput"),
        ({"service_tier": "SERVICE_TIER_PRIORITY"}, "priority"),  # Gemini
        ({"service_tier": "unspecified"}, None),
        ({"service_tier": None, "usage": {"service_tier": 3}}, None),
        ({"service_tier": "", "usage": {"speed": ""}}, None),
        ({}, None),
    ],
)
def test_the_tier_is_found_where_providers_name_it(metadata, tier) -> None:
    assert service_tier(metadata, None) == tier
    assert service_tier({}, metadata) == tier
