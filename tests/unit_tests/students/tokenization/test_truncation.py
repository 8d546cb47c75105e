"""Long conversations lose their oldest turns, in few attempts."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_gkt.students.tokenization.truncation import truncate

KINDS = {"s": SystemMessage, "h": HumanMessage, "a": AIMessage}


def size(messages) -> int:
    return sum(len(message.text) for message in messages)


def one_by_one(messages, limit: int):
    """What is left if turns are taken away until the rest fits."""
    system = [m for m in messages if m.type == "system"]
    turns = [m for m in messages if m.type != "system"]
    begun = [turns.pop()] if turns[-1].type == "ai" else []
    while len(turns) > 1 and size([*system, *turns, *begun]) > limit:
        del turns[0]
        while len(turns) > 1 and turns[0].type != "human":
            del turns[0]
    return [*system, *turns, *begun]


@given(st.lists(st.sampled_from("shat"), max_size=12), st.integers(1, 60), st.booleans())
def test_as_few_turns_as_possible_are_left_out(kinds, limit, begun) -> None:
    made = [
        ToolMessage("5" * 5, tool_call_id="1") if kind == "t" else KINDS[kind](str(at) * 4)
        for at, kind in enumerate(kinds)
    ]
    messages = [*made, HumanMessage("last"), *([AIMessage("so")] if begun else [])]
    kept = truncate(messages, lambda some: size(some) <= limit)
    expected = one_by_one(messages, limit)
    if size(expected) <= limit:
        assert kept == expected
    else:
        assert [m.type for m in kept] == [m.type for m in expected]
        assert size(kept) <= max(limit, size(expected) - len("ast"))


def test_many_turns_take_few_attempts() -> None:
    turns = [m for pair in product([HumanMessage("q"), AIMessage("a")]) for m in pair] * 500
    asked: list[int] = []
    truncate([*turns, HumanMessage("q")], lambda some: asked.append(1) or size(some) <= 10)
    assert len(asked) < 15


def test_system_messages_alone_stay() -> None:
    assert truncate([SystemMessage("x")], lambda some: False) == [SystemMessage("x")]
