"""Formats of a hint: what the teacher is asked for, and what the student goes on from."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import SystemMessage
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import WordTeacher
from support.models.saying import Adding

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HintPrompt,
    WithoutExemplars,
    track_costs,
)
from langchain_gkt.evaluation import Task, sweep_policies
from langchain_gkt.prompts.base import PromptContext, prepare

EQUATIONS = "left = 16 - 3 - 4\nmoney = left * 2"
WORKED = "left = 16 - 3 - 4 = 9\nmoney = left * 2 = 9 * 2 = 18\n"


def chain(says: str, kind: Any, **fields: Any) -> GuidedKnowledgeTransferChain:
    prompt = HintPrompt(format=kind) if isinstance(kind, str) else kind
    fields = {"guidance_tokens": 60, "max_tokens": 200, **fields}
    return GuidedKnowledgeTransferChain(
        teacher=WordTeacher(answer=says, asked=[]),
        student=Adding(),
        teacher_prompt=prompt,
        **fields,
    )


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("kind", "says", "begun"),
    [
        ("equations", EQUATIONS, WORKED),
        ("draft", "sell 9 eggs", "Draft: sell 9 eggs\n\nAnswer:"),
        ("option", "(c).", "The answer is (C) because"),
        ("short", "9 * 2 = 18", "In short: 9 * 2 = 18\n\nIn full:"),
    ],
)
async def test_the_hint_begins_the_answer(how, kind, says, begun) -> None:
    pair = chain(says, kind)
    with track_costs() as costs:
        message = await answer(pair, how, "How much does she earn?")
    gkt = message.response_metadata["gkt"]
    assert message.text == f"{begun} and more."
    assert (gkt["guidance"], gkt["finished_by"], gkt["fallback"]) == (begun, "student", None)
    assert gkt["guidance_tokens"] == len(says)  # one token for each character
    assert costs.report().teacher.completion_tokens == len(says)
    (asked,) = pair.teacher.asked
    assert isinstance(asked["messages"][0], SystemMessage)
    assert asked["limit"] == 60


async def test_a_line_that_the_limit_cut_is_left_out() -> None:
    message = await chain(EQUATIONS, "equations", guidance_tokens=30).ainvoke("How much?")
    assert message.text == "left = 16 - 3 - 4 = 9\n and more."


@pytest.mark.parametrize(
    ("kind", "says"), [("equations", "She earns 18 dollars."), ("option", "I cannot say")]
)
def test_what_is_no_hint_is_paid_and_dropped(kind, says) -> None:
    message = chain(says, kind).invoke("How much?")
    gkt = message.response_metadata["gkt"]
    assert message.text == " and more."
    assert gkt["fallback"] == "the teacher's hint could not be read"
    assert gkt["teacher_usage"]["output_tokens"] == len(says)


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "teacher"},
        {"guidance_tokens": 200},
        {"mode": "verified"},
    ],
)
def test_a_teacher_that_answers_the_whole_turn_is_asked_for_no_hint(fields) -> None:
    pair = chain("OK, it is 18.", "equations", **fields)
    pair.invoke("How much?")
    shown = [str(m.text) for one in pair.teacher.asked for m in one["messages"]]
    assert shown and not any("calculations" in text for text in shown)


def test_a_call_with_tools_or_a_schema_goes_without() -> None:
    hint = HintPrompt(format="draft")
    for field in ("whole_reply", "whole_answer", "has_tools"):
        made = prepare(hint, [SystemMessage("Be kind.")], PromptContext(**{field: True}))
        assert (made.hint, [m.text for m in made.messages]) == (None, ["Be kind."])


def test_own_words_and_joined_prompts() -> None:
    prompt = WithoutExemplars() | HintPrompt(format="equations", text="Only sums.")
    pair = chain(EQUATIONS, prompt)
    assert pair.invoke("How much?").text == f"{WORKED} and more."
    assert str(pair.teacher.asked[0]["messages"][0].text) == "Only sums."


def test_guide_returns_the_hint() -> None:
    found = chain(EQUATIONS, "equations").guide("How much?")
    assert (found.text, found.complete) == (WORKED, False)


def test_a_policy_file_holds_a_hint(tmp_path) -> None:
    policy = GuidancePolicy(tokens=30, teacher_prompt=HintPrompt(format="option"))
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "equation"}, "HintPrompt.format must be one of 'equations', 'draft'"),
        ({"format": "draft", "text": " "}, "HintPrompt.text must be a text that is not blank"),
        ({"format": "draft", "txt": "x"}, "txt"),
    ],
)
def test_fields_are_checked(fields, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        HintPrompt(**fields)


def test_formats_are_compared_by_a_sweep() -> None:
    """The teacher is asked for hints in a sweep, and lengths are cut from them."""
    task = Task("eggs", [{"question": f"{n} eggs?"} for n in range(4)], lambda t, r: "18" in t)
    found = sweep_policies(
        chain(EQUATIONS, None),
        task,
        {"prefix": None, "equations": {"teacher_prompt": HintPrompt(format="equations")}},
        lengths=[60],
        progress=False,
    )
    assert found.sweeps["equations"].by_length[60].accuracy == 1
    assert found.sweeps["prefix"].by_length[60].accuracy == 0
