"""Reasoning of students that are other people's chat models is not shown, and is paid for."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from support.entry_points import ENTRY_POINTS, answer
from support.models.saying import Saying, reply

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain
from langchain_gkt.gates import AgreementGate

USAGE: Any = {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}
BEGUN = reply("The sum is ", tokens=4, reason="length")


def make(*pieces: Any, **fields: Any) -> GuidedKnowledgeTransferChain:
    """A chain whose student is a client that streams these pieces of content."""
    chunks = [
        AIMessageChunk(piece, additional_kwargs={"reasoning_content": "Hm. "}) for piece in pieces
    ]
    chunks.append(AIMessageChunk("", usage_metadata=USAGE))
    student = Saying(asked=[], says=lambda limit: chunks)
    teacher = Saying(asked=[], says=lambda limit: BEGUN)
    fields = {"guidance_tokens": 4, "mode": "student", **fields}
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)


THOUGHTS: list[tuple[Any, ...]] = [
    ("<thi", "nk>Two a", "nd three.</th", "ink>\n\nIt is", " five."),
    ("<THINK>", "Two.", "</THINK>It is", " five."),
    ("<reasoning>Two.</reasoning>", "<analysis>Three.</Analysis>", "\nIt is five."),
    ("<|begin_of_thought|>Two.<|end_of_thought|>", "It is five."),
    (
        [{"type": "thinking", "thinking": "Two.", "index": 0}],
        [{"type": "text", "text": "It is five.", "index": 1}],
    ),
    ([{"type": "reasoning", "reasoning": "Two.", "index": 0}], "It is five."),
    (
        "<|channel|>ana",
        "lysis<|message|>Two.<|end|><|start|>assist",
        "ant<|channel|>final<|message|>It is five.",
    ),
    ("<|channel|>analysis<|message|>Two.", "<|channel|>final<|message|>It is", " five.<|return|>"),
    ("analysis", "Two and three.assistant", "finalIt is five."),
    ("It is", " five."),
]


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
@pytest.mark.parametrize("pieces", THOUGHTS)
async def test_reasoning_is_not_shown(pieces, how) -> None:
    message = await answer(make(*pieces), how, "2 + 3?")
    assert message.text == "It is five."
    assert message.response_metadata["gkt"]["student_usage"] == USAGE


@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize("pieces", [("<think>", "Two.</think>", " five."), ("five", ".")])
async def test_behind_guidance_words_do_not_run_together(pieces, how) -> None:
    message = await answer(make(*pieces, mode="guided"), how, "2 + 3?")
    assert message.text == "The sum is five."


def test_a_tag_further_on_is_text() -> None:
    said = "Write <think> and </think> there."
    assert make(said).invoke("How?").text == said
    assert "".join(chunk.text for chunk in make("Write <thi", "nk> <").stream("?")).endswith("> <")


async def test_a_block_whose_end_alone_is_marked() -> None:
    chain = make("Two and three.\n", "</think>\n\n", "It is five.")
    assert chain.invoke("2 + 3?").text == "It is five."
    with pytest.warns(UserWarning, match="the student's reasoning was shown"):
        await answer(chain, "stream", "2 + 3?")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await answer(chain, "astream", "2 + 3?")).text == "It is five."


def test_votes_and_gates_read_answers_alone() -> None:
    pieces = ("<think>", "Two.", "</think>", "It is five.")
    assert make(*pieces, samples=3).invoke("2 + 3?").text == "It is five."
    gate = AgreementGate(samples=2, at_least=2, answer_of="text")
    chain = make(*pieces, mode="guided", guidance=GuidancePolicy(gate=gate))
    message = chain.invoke("2 + 3?")
    assert (message.text, message.response_metadata["gkt"]["agreement"]) == ("It is five.", 1.0)


def test_a_draft_is_checked_without_its_reasoning() -> None:
    chain = make("<think>Two.</think>", "It is five.", mode="verified")
    chain.invoke("2 + 3?")
    assert "<think>" not in str(chain.teacher.asked[0]["messages"])
