"""Prompts that keep the beginning which a provider caches."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from support.models.saying import Adding, Saying, reply

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    InstructTeacher,
    KeepPrefix,
    LastTurns,
    SummarizeOlder,
    WithoutExemplars,
    mark_exemplars,
)
from langchain_gkt.prompts.base import PromptContext
from langchain_gkt.prompts.shared_prefix import cache_notes, shared_prefix

RULES = SystemMessage(
    [{"type": "text", "text": "Be brief. " * 9, "cache_control": {"type": "ephemeral"}}]
)
EXAMPLES = mark_exemplars([("human", "2 + 2?"), ("ai", "4."), ("human", "1 + 1?"), ("ai", "2.")])
FRONT = [RULES, *EXAMPLES]
TALK = [HumanMessage("I am Ada."), AIMessage("Hello."), HumanMessage("And?"), AIMessage("Yes.")]
ASKED = HumanMessage("3 + 4?")


def as_bytes(messages: list[BaseMessage]) -> str:
    return "".join(f"{one.type}:{one.content}|" for one in messages)


def test_the_front_stays_and_the_talk_behind_it_is_shortened() -> None:
    whole = [*FRONT, *TALK, ASKED]
    context = PromptContext(conversation=whole)
    assert KeepPrefix().prepare(whole, context) == [*FRONT, ASKED]
    assert KeepPrefix(count=2).prepare(whole, context) == [*FRONT, *TALK[2:], ASKED]
    assert KeepPrefix().prepare([*FRONT, ASKED], context) == [*FRONT, ASKED]
    assert KeepPrefix().prepare([*TALK, ASKED], context) == [ASKED]


def test_two_turns_of_a_talk_begin_alike_only_if_the_front_is_kept() -> None:
    talks = [[*FRONT, *TALK[:2], HumanMessage("And?")], [*FRONT, *TALK, ASKED]]

    def common(prompt: Any) -> int:
        made = [prompt.prepare(one, PromptContext(conversation=one)) for one in talks]
        pairs = zip(*(as_bytes(list(one)) for one in made), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    assert common(KeepPrefix()) >= len(as_bytes(FRONT))
    for breaking in (WithoutExemplars(), LastTurns()):
        assert common(breaking) < len(as_bytes(FRONT))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, []),
        (KeepPrefix(), []),
        (WithoutExemplars(), ["WithoutExemplars drops worked examples"]),
        (LastTurns() | InstructTeacher(), ["LastTurns drops turns", "InstructTeacher names the"]),
        (InstructTeacher(tokens=9), []),
        (SummarizeOlder(), ["SummarizeOlder puts a summary"]),
        (lambda messages: messages, []),
    ],
)
def test_prompts_say_what_they_break(prompt: Any, words: list[str]) -> None:
    notes = cache_notes(prompt)
    assert len(notes) == len(words)
    assert all(note.startswith(word) for note, word in zip(notes, words, strict=True))


def test_what_prompts_share_is_measured() -> None:
    found = shared_prefix([[RULES, HumanMessage("ab")], [RULES, HumanMessage("acd")]])
    front = len(str(RULES.content))
    assert found == (front + 1, 2 * front + 5, 2)
    assert found.tokens(2 * front + 5) == front + 1
    assert shared_prefix([[ASKED]]).shared == 0
    assert shared_prefix([[ASKED], [AIMessage("3 + 4?")]]).shared == 0
    assert shared_prefix([]).share == 0.0
    three = shared_prefix([[HumanMessage(text)] for text in ("abx", "aby", "acz")])
    assert three.shared == 1


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_every_request_of_a_call_begins_with_the_same_bytes() -> None:
    cut = reply(
        tokens=9, reason="length", invalid_tool_calls=[{"name": "add", "args": '{"a', "id": "1"}]
    )
    done = reply(tool_calls=[{"name": "add", "args": {"a": 3, "b": 4}, "id": "1"}])
    teacher = Saying(says=lambda limit: cut if limit == 9 else done)
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher,
        student=Adding(),
        guidance=GuidancePolicy(tokens=9, teacher_prompt=KeepPrefix()),
        max_tokens=90,
    )
    chain.bind_tools([add]).invoke([*FRONT, *TALK, ASKED])  # the cut tool call is asked for again
    says = reply("It is 7 because of this", tokens=9, reason="length")
    judge = Saying(says=lambda limit: says)
    for mode in ("guided", "verified"):
        chain.model_copy(update={"teacher": judge}).invoke([*FRONT, ASKED], mode=mode)
    sent = [as_bytes(one["messages"]) for one in [*teacher.asked, *judge.asked]]
    assert (len(teacher.asked), len(judge.asked)) == (2, 2)
    assert {text[: len(as_bytes(FRONT))] for text in sent} == {as_bytes(FRONT)}
    assert any(text != sent[0] for text in sent)
