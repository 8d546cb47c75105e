from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_gkt.costs.usage import TokenRate, Tokens, read_tokens
from langchain_gkt.providers.errors import may_have_billed
from langchain_gkt.providers.usage import MOST_TOKENS, believable

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(0, 900), st.floats(), st.text(max_size=5)
)
DETAILS = st.one_of(
    ODD, st.dictionaries(st.sampled_from(["cache_read", "flex_cache_read", "reasoning"]), ODD)
)
REPORTED = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": ODD,
        "output_tokens": ODD,
        "total_tokens": ODD,
        "input_token_details": DETAILS,
        "output_token_details": DETAILS,
    },
)


@given(REPORTED, st.booleans())
def test_whatever_is_reported_is_counted_or_refused(reported, wrote) -> None:
    usage, refused = believable(reported, wrote=wrote)
    if usage is None:
        return
    tokens = read_tokens(usage)
    assert 0 <= tokens.cached + tokens.cache_written <= tokens.prompt <= MOST_TOKENS
    assert 0 <= tokens.reasoning <= tokens.completion <= MOST_TOKENS
    assert usage["total_tokens"] >= tokens.prompt + tokens.completion
    said = [reported.get("input_tokens"), reported.get("output_tokens")]
    assert said == [tokens.prompt, tokens.completion]
    assert refused is None or "token_details" in refused


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_details_of_a_tier_are_read(tier) -> None:
    used = {
        "input_tokens": 100,
        "output_tokens": 50,
        "input_token_details": {f"{tier}_cache_read": 30, tier: 70},
        "output_token_details": {f"{tier}_reasoning": 20, tier: 30},
    }
    tokens = read_tokens(used)
    assert (tokens.cached, tokens.reasoning, tokens.tier) == (30, 20, tier)


def test_which_failures_may_have_been_billed() -> None:
    class Refused(Exception):
        status_code = 500

    def caused(error: Exception, cause: BaseException) -> Exception:
        error.__cause__ = cause
        return error

    assert may_have_billed(GeneratorExit())
    assert may_have_billed(TimeoutError())
    assert may_have_billed(ConnectionResetError())
    assert not may_have_billed(Refused())
    assert not may_have_billed(caused(RuntimeError(), Refused()))
    assert not may_have_billed(caused(OSError(), ConnectionRefusedError()))
    old = TimeoutError()
    old.__context__ = Refused()  # an older error that was being handled meanwhile
    assert may_have_billed(old)


def test_density_learns_from_what_was_reported() -> None:
    rate = TokenRate()
    assert (rate.prompt(400), rate.completion(400)) == (100, 100)
    rate.learn(Tokens(prompt=50, completion=30, reasoning=10), prompt_chars=100, text_chars=100)
    assert (rate.prompt(400), rate.completion(400)) == (200, 80)
