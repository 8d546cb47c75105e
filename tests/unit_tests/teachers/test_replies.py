"""What a teacher's reply says: whether it is finished, and what it cost."""

from __future__ import annotations

import itertools

import pytest
from langchain_core.messages import AIMessage

from langchain_gkt import GuidancePolicy, TeacherError
from langchain_gkt.teachers.replies import (
    believed,
    explain_ignored_limit,
    read,
)
from langchain_gkt.texts.reasoning import without_reasoning


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


def test_a_limit_that_was_ignored_without_a_word_about_usage_is_noticed() -> None:
    told = read(message("ab cd " * 10, finish_reason="stop"), 12, GuidancePolicy(), None)
    key, says = explain_ignored_limit(told, 12)
    assert key == "ignored-limit-unreported"
    assert "asked for at most 12" in says
    assert len(told.written.split()) == 20 and len(told.text.split()) <= 12
    assert not told.complete
    # Long words take several tokens each, but never more than they have letters.
    kept = read(
        message("internationalisation " * 7, finish_reason="stop"), 12, GuidancePolicy(), None
    )
    assert explain_ignored_limit(kept, 12) is None and kept.complete


@pytest.mark.parametrize("output", [0, 1, None])
def test_usage_in_parts_cuts_no_text(output) -> None:
    text = "Six apples and four make ten. " * 4
    whole = message(text, output, finish_reason="stop")
    reply, refused = believed(whole)
    assert (reply.usage_metadata, refused) == (None, None)
    guidance = read(reply, 24, GuidancePolicy(), None)
    assert (guidance.text, guidance.complete, guidance.estimated) == (text, True, True)
    assert explain_ignored_limit(guidance, 24) is None


def test_hidden_reasoning_that_eats_the_limit_is_explained() -> None:
    with pytest.raises(TeacherError, match=r"40 hidden reasoning tokens.*raise guidance_tokens"):
        read(message("", 40, reasoning=40, finish_reason="length"), 40, GuidancePolicy(), None)


def test_text_is_cut_at_a_stop_string_the_teacher_overran() -> None:
    guidance = read(message("yes\nQ: more", 9), 9, GuidancePolicy(), ["\nQ:"])
    assert (guidance.text, guidance.complete) == ("yes", True)


THOUGHTS = "\n<think>\nThey want 5.\n</think>\n\nThe answer is 5, because"


def test_reasoning_in_the_text_is_no_guidance() -> None:
    cut = message(THOUGHTS, 20, finish_reason="length")
    assert read(cut, 20, GuidancePolicy(), None).text.strip() == "The answer is 5,"
    whole = read(cut, 20, GuidancePolicy(), None, keep_reasoning=True)
    assert whole.text.startswith("\n<think>")
    for end in (3, 10, len("\n<think>\nThey want 5.\n</thi")):
        unclosed = message(THOUGHTS[:end], 20, finish_reason="length")
        with pytest.raises(TeacherError, match=r"nothing but reasoning.*raise guidance_tokens"):
            read(unclosed, 20, GuidancePolicy(), None)
    plain = " <thinner> is no tag, <think> further on is none either"
    assert without_reasoning(plain) == plain


def test_streams_show_no_reasoning() -> None:
    shown = [without_reasoning(THOUGHTS[:end]) for end in range(len(THOUGHTS) + 1)]
    assert all(longer.startswith(one) for one, longer in itertools.pairwise(shown))
    assert shown[-1] == "The answer is 5, because"
    assert not any("<" in one or "want" in one for one in (text.strip() for text in shown))


@pytest.mark.parametrize("tag", ["think", "reasoning"])
def test_a_closing_tag_alone_ends_reasoning(tag) -> None:
    text = f"They want 5.\nSo 5.\n</{tag}>\n\nThe answer is 5, because"
    cut = message(text, 20, finish_reason="length")
    assert read(cut, 20, GuidancePolicy(), None).text.strip() == "The answer is 5,"
    assert without_reasoning(f"</{tag}>\nFive.") == "Five."
    quoted = f"The tag `</{tag}>` ends it. Write </{tag}> there."
    assert without_reasoning(quoted) == quoted
    unfinished = message(f"They want 5.\n</{tag}>\n", 20, finish_reason="length")
    with pytest.raises(TeacherError, match="nothing but reasoning"):
        read(unfinished, 20, GuidancePolicy(), None)
