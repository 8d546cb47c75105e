"""A student that calls tools."""

from __future__ import annotations

import json

import pytest
from support.entry_points import ENTRY_POINTS, answer
from support.models.scripted import add, note

LONG = "Please note 'a rather long line of words that no small limit could ever hold, ä and 你'"


@pytest.mark.slow
async def test_the_students_call_streams_as_it_is_invoked(caller) -> None:
    bound = caller.bind_tools([note])
    results = [await answer(bound, how, LONG) for how in ENTRY_POINTS]
    assert {json.dumps(r.tool_calls[0]["args"]) for r in results} == {
        json.dumps({"words": LONG.split("'")[1]})
    }
    assert {r.text for r in results} == {""}
    assert all(call["id"].startswith("call_") for r in results for call in r.tool_calls)


@pytest.mark.slow
def test_tool_choice_holds_the_student_to_the_tool(caller) -> None:
    forced = caller.bind_tools([add, note], tool_choice="note").invoke("Hello")
    assert forced.tool_calls[0]["name"] == "note"
    assert not caller.bind_tools([add], tool_choice="none").invoke("add 2 and 3").tool_calls
    with pytest.raises(ValueError, match=r"'nte' is none of the bound tools \(add, note\)"):
        caller.bind_tools([add, note], tool_choice="nte").invoke("Hello")


def test_stop_strings_end_text_and_never_a_call(caller) -> None:
    bound = caller.bind_tools([add])
    for stop in (["\n"], ["arguments"], ["}"]):
        message = bound.invoke("add 2 and 3", stop=stop)
        assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}
    stopped = bound.invoke("Hello", stop=["well met"])
    assert stopped.text == "Hello there, and "
    assert stopped.response_metadata["finish_reason"] == "stop"
    chunks = list(bound.stream("Hello", stop=["well met"]))
    assert "".join(chunk.text for chunk in chunks) == stopped.text
    schema = {"title": "A", "type": "object", "properties": {"age": {"type": "integer"}}}
    held = caller.with_structured_output(schema | {"required": ["age"]})
    assert set(held.invoke("x", stop=["age"])) == {"age"}


def test_a_call_that_is_cut_says_so(caller) -> None:
    message = caller.bind_tools([add]).invoke("add 2 and 3", max_tokens=10)
    assert message.response_metadata["finish_reason"] == "length"
    assert not message.tool_calls


def test_a_student_without_place_for_tools_says_so(student) -> None:
    assert not student.knows_tools
    with pytest.raises(NotImplementedError, match="no place for tools"):
        student.bind_tools([add])
