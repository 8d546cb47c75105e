"""Votes on answers that no reader can read."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from langchain_gkt.students.voting import vote


def test_an_answer_of_endless_brackets_agrees_with_none() -> None:
    stuck, read = AIMessage("[" * 5_000), AIMessage('{"a": 1}')
    counted = vote([stuck, read, stuck, AIMessage('{"a":1}')], "json")
    assert (counted.winner, counted.agreement) == (read, 0.5)
    assert vote([stuck], "json").winner is None
