"""Recorded replies: where their tokens end, and what a teacher makes of them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models.exam import PRICE, pair, solution, task, words

from langchain_gkt import TeacherError
from langchain_gkt.evaluation import sweep
from langchain_gkt.evaluation.running.records import TeacherReply
from langchain_gkt.evaluation.running.replay import ReplayedReply, ReplayTeacher
from langchain_gkt.teachers.token_cuts import token_splitter


def reply(text: str, tokens: list[str] | None, *, reported: int | None = None, reasoning: int = 0):
    usage = None
    if reported is not None:
        usage = {
            "input_tokens": 3,
            "output_tokens": reported,
            "total_tokens": 3 + reported,
            "output_token_details": {"reasoning": reasoning},
        }
    pieces = None if tokens is None else [token.encode().hex() for token in tokens]
    return TeacherReply(text=text, usage=usage, finish_reason="stop", pieces=pieces)


@pytest.mark.slow
@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12), st.integers(0, 20))
def test_told_tokens_are_cut_exactly(tokens, limit) -> None:
    replayed = ReplayedReply(reply("".join(tokens), tokens, reported=len(tokens) + 1))
    text, used, whole = replayed.cut(limit)
    assert text == "".join(tokens[:limit])
    assert whole is (limit > len(tokens))
    assert used == min(limit, len(tokens) + 1)


def test_half_a_character_is_left_out() -> None:
    euro = "€".encode()
    told = TeacherReply(
        text="5 €",
        usage={"input_tokens": 1, "output_tokens": 4, "total_tokens": 5},
        pieces=[b"5 ".hex(), euro[:1].hex(), euro[1:].hex()],
    )
    assert [ReplayedReply(told).cut(n)[0] for n in (1, 2, 3)] == ["5 ", "5 ", "5 €"]


def test_tokens_that_are_not_the_text_are_not_believed() -> None:
    assert ReplayedReply(reply("a b", ["a"], reported=3)).method == "approximate"
    assert ReplayedReply(reply("a b", ["a"], reported=3), words).method == "tokenizer"
    assert ReplayedReply(reply("a b", None, reported=3), lambda text: ["x"]).method == "approximate"
    assert ReplayedReply(reply("abcdef", None, reported=3)).cut(1)[0] == "ab"


def test_providers_that_do_not_count_the_end_token() -> None:
    replayed = ReplayedReply(reply("a b c", ["a", " b", " c"], reported=3))
    assert replayed.cut(3) == ("a b c", 3, True)
    assert replayed.cut(2) == ("a b", 2, False)


def test_hidden_reasoning_comes_first() -> None:
    replayed = ReplayedReply(reply("a b", ["a", " b"], reported=7, reasoning=4))
    assert [replayed.cut(n)[0] for n in (4, 5, 6)] == ["", "a", "a b"]
    chain = pair().model_copy(update={"teacher": ReplayTeacher(reply=replayed)})
    with pytest.raises(TeacherError, match="spent 4 hidden reasoning tokens"):
        chain.invoke("What is one more than 1?", guidance_tokens=4)


def test_a_tokenizers_pieces_are_the_text(student) -> None:
    cut = token_splitter(student._loader.load().prompts.tokenizer)
    for text in (solution(12), "  two blanks", "5 € for it\nnew line", "Zoë 数"):
        pieces = cut(text)
        assert "".join(pieces) == text or pieces == []
    assert cut(solution(12))


def test_a_recorded_teacher_costs_nothing_of_its_own(tmp_path) -> None:
    found = sweep(pair(), task(2), lengths=[6], teacher_price=PRICE, out=tmp_path)
    spent = sum(
        (a.teacher.cost or Decimal(0) for a in found.answers if a.mode == "teacher"), Decimal(0)
    )
    assert found.teacher.cost == spent
    assert {a.replayed for a in found.answers if a.mode == "guided"} == {True}
