"""What a teacher's reply says: whether it is finished, and what it cost."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from langchain_gkt import GuidancePolicy, TeacherError
from langchain_gkt.teachers.replies import read


def message(text: str, output: int | None = None, reasoning: int = 0, **metadata) -> AIMessage:
    usage = None
    if output is not None:
        details = {"reasoning": reasoning}
        usage = {
            "input_tokens": 1,
            "output_tokens": output,
            "total_tokens": 1 + output,
            "output_token_details": details,
        }
    return AIMessage(text, usage_metadata=usage, response_metadata=metadata)


@pytest.mark.parametrize(
    ("reply", "complete"),
    [
        (message("a b", 2, finish_reason="stop"), True),
        (message("a b", 4, finish_reason="length"), False),
        (message("a b", 4, stop_reason="end_turn"), True),
        (message("a b", 4, stop_reason="max_tokens"), False),
        (message("a b", 4, finish_reason="MAX_TOKENS"), False),
        (message("a b", 4, done_reason="length"), False),
        (message("a b", 2), True),
        (message("a b", 4), False),
        (message("a b"), False),
    ],
)
def test_whether_the_teacher_finished(reply, complete) -> None:
    guidance = read(reply, 4, GuidancePolicy(), None)
    assert guidance.complete is complete
    assert guidance.text == ("a b" if complete else "a ")


def test_a_limit_that_was_ignored_is_cut_to() -> None:
    guidance = read(message("ab " * 10, 30, finish_reason="stop"), 10, GuidancePolicy(), None)
    assert guidance.text == "ab ab ab "
    assert not guidance.complete
    assert guidance.token_count == 30


def test_hidden_reasoning_that_eats_the_limit_is_explained() -> None:
    with pytest.raises(TeacherError, match=r"40 hidden reasoning tokens.*raise guidance_tokens"):
        read(message("", 40, reasoning=40, finish_reason="length"), 40, GuidancePolicy(), None)


def test_text_is_cut_at_a_stop_string_the_teacher_overran() -> None:
    guidance = read(message("yes\nQ: more", 9), 9, GuidancePolicy(), ["\nQ:"])
    assert (guidance.text, guidance.complete) == ("yes", True)
