from __future__ import annotations

import dataclasses

import pytest
from langchain_core.messages import AIMessage

from langchain_gkt import Guidance, GuidancePolicy, TeacherError
from langchain_gkt.teachers.replies import read


@pytest.mark.parametrize(
    ("cut", "written", "kept"),
    [
        ("word", "Plan: 14 plu", "Plan: 14"),
        ("word", "Plan: 14 ", "Plan: 14"),
        ("word", "one\n\ntw", "one"),
        ("word", "unbroken", ""),
        ("word", "", ""),
        ("word", "我们先算一", "我们先算"),
        ("sentence", "It rains. So he sta", "It rains."),
        ("sentence", 'He said "no!" and wen', 'He said "no!"'),
        ("sentence", "No end in sigh", "No end in"),
        ("sentence", "It costs 3.5 dollars. Ye", "It costs 3.5 dollars."),
        ("none", "Plan: 14 plu ", "Plan: 14 plu "),
    ],
)
def test_where_guidance_is_cut(cut, written, kept) -> None:
    assert GuidancePolicy(cut=cut).trim(written) == kept


@pytest.mark.parametrize("cut", ["word", "sentence", "none"])
def test_what_can_be_shown_only_grows(cut) -> None:
    text = 'He has 3.5 apples. "Why?" 我们 先算。 Then\nhe eats 2, and so on. End'
    policy = GuidancePolicy(cut=cut)
    for size in range(len(text)):
        shorter, longer = policy.trim(text[:size]), policy.trim(text[: size + 1])
        assert longer.startswith(shorter)
        assert text.startswith(longer)


def test_policies_are_checked_and_frozen() -> None:
    with pytest.raises(ValueError, match=r"GuidancePolicy\.tokens must be 0"):
        GuidancePolicy(tokens=-1)
    with pytest.raises(ValueError, match="'word', 'sentence' or 'none'"):
        GuidancePolicy(cut="letter")
    with pytest.raises(dataclasses.FrozenInstanceError):
        GuidancePolicy().tokens = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        Guidance(text="x", token_count=1).text = "y"


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
    assert guidance.text == ("a b" if complete else "a")


def test_a_limit_that_was_ignored_is_cut_to() -> None:
    guidance = read(message("ab " * 10, 30, finish_reason="stop"), 10, GuidancePolicy(), None)
    assert guidance.text == "ab ab ab"
    assert not guidance.complete
    assert guidance.token_count == 30


def test_hidden_reasoning_that_eats_the_limit_is_explained() -> None:
    with pytest.raises(TeacherError, match=r"40 hidden reasoning tokens.*raise guidance_tokens"):
        read(message("", 40, reasoning=40, finish_reason="length"), 40, GuidancePolicy(), None)


def test_text_is_cut_at_a_stop_string_the_teacher_overran() -> None:
    guidance = read(message("yes\nQ: more", 9), 9, GuidancePolicy(), ["\nQ:"])
    assert (guidance.text, guidance.complete) == ("yes", True)
