"""What an answer says of itself: one yardstick for every turn of a conversation."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage

from langchain_gkt import Guidance
from langchain_gkt.chain.callbacks.usage import usage_of_answer


def usage(prompt: int, completion: int) -> Any:
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": prompt + completion,
    }


def test_every_turn_measures_the_larger_prompt_of_both() -> None:
    guidance = Guidance(text="Six", token_count=2, written="Six", usage=usage(3_500, 2))
    reply = AIMessage(" apples.", usage_metadata=usage(9, 4))
    called = AIMessage("", usage_metadata=usage(3_500, 20))
    text, tool = usage_of_answer(guidance, None, reply), usage_of_answer(None, called, None)
    assert text == usage(3_500, 6)  # the student's own prompt has 7 tokens
    assert tool == usage(3_500, 20)
    longer = AIMessage(" apples.", usage_metadata=usage(4_002, 4))
    assert usage_of_answer(guidance, None, longer) == usage(4_000, 6)
    assert usage_of_answer(None, None, reply) == usage(9, 4)  # no teacher was asked


def test_a_prompt_of_the_teachers_own_does_not_shrink_a_tool_turn() -> None:
    called = AIMessage("", usage_metadata=usage(100, 20))
    assert usage_of_answer(None, called, None, prompt_share=0.1) == usage(1_000, 20)


def test_what_is_not_reported_is_not_made_up() -> None:
    guidance = Guidance(text="Six", token_count=2, written="Six", estimated=True)
    reply = AIMessage(" apples.", usage_metadata=usage(9, 4))
    assert usage_of_answer(guidance, None, reply) == usage(7, 6)
    assert usage_of_answer(guidance, None, None) is None
    assert usage_of_answer(None, AIMessage(""), None) is None
