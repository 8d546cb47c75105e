from __future__ import annotations

import pytest

from langchain_gkt.costs.usage import TokenRate, Tokens, read_tokens
from langchain_gkt.provider_errors import may_have_billed


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
