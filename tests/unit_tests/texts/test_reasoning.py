"""Reasoning is taken out of an answer, however it is split."""

from __future__ import annotations

import pytest

from langchain_gkt.texts.harmony import HarmonyFilter
from langchain_gkt.texts.reasoning import (
    TAGS,
    ReasoningFilter,
    answer_in,
    open_tags,
    without_reasoning,
)

SIZES = [1, 2, 3, 7, 1000]


def shown(text_filter, text: str, size: int) -> str:
    parts = [text_filter.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join(parts) + text_filter.finish()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tags", TAGS)
def test_blocks_in_front_of_an_answer(tags, size) -> None:
    opened, closed = tags
    for text, answer in [
        (f"{opened}hm{closed}yes", "yes"),
        (f"\n {opened}\nhm\n{closed}\n\n yes ", "yes "),
        (f"{opened}a{closed}{opened}b{closed}yes", "yes"),
        (f"{closed}\nyes", "yes"),
        (f"{opened}hm", ""),
        (f"{opened}{closed}", ""),
        (f" yes {opened}no{closed}", f" yes {opened}no{closed}"),
        (opened[:-1], opened[:-1]),
        ("  ", "  "),
    ]:
        assert shown(ReasoningFilter(), text, size) == answer
    assert shown(ReasoningFilter(tags), f"hm{closed[:-1]}x{closed} yes", size) == "yes"
    assert shown(ReasoningFilter(tags), "hm", size) == ""


@pytest.mark.parametrize("size", SIZES)
def test_behind_a_begun_answer_words_do_not_run_together(size) -> None:
    for text, answer in [("<think>x</think> 2", " 2"), ("<think>x</think>2", "2"), (" 2", " 2")]:
        assert shown(ReasoningFilter(has_begun=True), text, size) == answer


def test_what_is_taken_out_is_counted_whole() -> None:
    taker = ReasoningFilter()
    assert shown(taker, "<think>hm</think>\nyes", 3) == "yes"
    assert taker.reasoning == "<think>hm</think>"


@pytest.mark.parametrize("size", SIZES)
def test_the_case_of_tags_does_not_matter(size) -> None:
    for opened, closed in [("<THINK>", "</THINK>"), ("<Reasoning>", "</reasoning>")]:
        assert shown(ReasoningFilter(), f"{opened}hm{closed}\nyes", size) == "yes"
        assert shown(ReasoningFilter((opened, closed)), f"hm{closed.lower()}yes", size) == "yes"
        assert answer_in(f"{opened}hm{closed}yes") == "yes"


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<THINK>", "</THINK>"),
        ("<thinking>", "</thinking>"),
        ("<analysis>", "</analysis>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|begin_of_deliberation|>", "<|end_of_deliberation|>"),
        ("<|BEGIN_REASONING|>", "<|END_REASONING|>"),
        ("<|think_start|>", "<|think_end|>"),
        ("<|reflect|>", "<|/reflect|>"),
        ("[THINK]", "[/THINK]"),
        ("<inner-voice>", "</inner-voice>"),
    ],
)
def test_a_template_may_open_a_block_of_any_name(opened, closed) -> None:
    source = f"{opened} or {closed}"
    assert open_tags(f"<|end|><|assistant|>{opened}\n", ["<|end|>"], source) == (opened, closed)
    assert open_tags(f"<|assistant|>{opened}\n\n{closed}\n\n", [], source) is None


@pytest.mark.parametrize(
    "header",
    ["<|assistant|>", "<assistant>\n", "[/INST]", "<start_of_turn>model\n", "<bot>", "<|h|>"],
)
def test_a_speakers_name_opens_nothing(header) -> None:
    assert open_tags(header, [], "<assistant></assistant><bot></bot></model>") is None


def test_open_blocks() -> None:
    assert open_tags("<|end|><|assistant|><think>\n") == ("<think>", "</think>")
    assert open_tags("<|assistant|><think>Well") == ("<think>", "</think>")
    assert open_tags("<think>\n\n</think>\n\n") is None
    assert open_tags("not <think>.<|end|><|assistant|>", ["<|end|>"]) is None


@pytest.mark.parametrize("size", SIZES)
def test_channels(size) -> None:
    analysis = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    final, start = "<|channel|>final<|message|>yes", "<|start|>assistant"
    for header, text, answer in [
        (start, f"{analysis}{final}", "yes"),
        (start, f"{analysis}{final}<|return|>", "yes"),
        (start, f"<|channel|>commentary<|message|>so<|end|>{start}{final}", "yes"),
        (start, analysis, ""),
        (start, "<|channel|>ana", ""),
        (start, "yes", "yes"),
        (f"{start}<|channel|>analysis<|message|>", f"hm<|end|>{start}{final}", "yes"),
        (f"{start}<|channel|>final<|message|>", "yes", "yes"),
        (f"{start}<|channel|>final<|message|>", "1 <|e 2", "1 <|e 2"),
        (start, f"{analysis.removesuffix(f'<|end|>{start}')}{final}", "yes"),  # no end between
        (f"{start}<|channel|>final<|message|>", f"yes{analysis}", "yes"),
        (start, "<|channel|>Final<|message|>yes", "yes"),
        (start, "<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}"),
        (start, f"{final}<|end|><|start|>user<|message|>more", "yes"),
        (start, "yes<|end|>", "yes"),
        (start, "yes <|x|>", "yes <|x|>"),
    ]:
        assert shown(HarmonyFilter(header), text, size) == answer
    taker = HarmonyFilter(start)
    call = "<|channel|>commentary to=functions.add <|constrain|>json<|message|>{}<|call|>"
    assert shown(taker, f"{analysis}{call}", size) == ""
    assert (taker.calls, taker.reasoning) == ([("add", "{}")], "hm")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_begun", [False, True])
def test_channels_of_a_model_whose_template_is_not_known(size, has_begun) -> None:
    analysis, final = "<|channel|>analysis<|message|>hm", "<|channel|>final<|message|>yes"
    for text in (
        f"{analysis}<|end|><|start|>assistant{final}<|return|>",
        f"<|start|>assistant{analysis}<|end|><|start|>assistant{final}",
        f"\n{analysis}{final}",
    ):
        taker = ReasoningFilter(has_begun=has_begun)
        assert (shown(taker, text, size), taker.reasoning) == ("yes", "hm")
    assert shown(ReasoningFilter(), analysis, size) == without_reasoning(analysis) == ""
    taker = ReasoningFilter()
    assert (shown(taker, f"{analysis} <|", size), taker.reasoning) == (
        "",
        "hm <|",
    )
    if size > 8:
        bare = ReasoningFilter(has_begun=has_begun)
        assert shown(bare, "analysisWe add.assistantfinalyes", size).strip() == "yes"


def test_words_are_no_channels() -> None:
    for text in ("a", "analysis of it", "analyse", "Analysis: two", "<|start|>user"):
        assert answer_in(text) == without_reasoning(text) == text
