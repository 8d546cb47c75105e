"""Models that are stuck nest brackets without end. Python's reader of JSON gives up on them."""

from __future__ import annotations

from langchain_core.messages import AIMessageChunk

from langchain_gkt.chain.messages import tool_call_chunk_of
from langchain_gkt.prompts.base import PreparedPrompt
from langchain_gkt.structured_output.partial_json import complete_json
from langchain_gkt.teachers.tools import without_cut_calls
from langchain_gkt.texts.tool_text import whole_call, written_calls

NESTED = "[" * 5_000
CALL = f'{{"name": "add", "arguments": {NESTED}'
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def reply() -> AIMessageChunk:
    chunk = {"name": "add", "args": NESTED, "id": "1", "index": 0}
    return AIMessageChunk("", tool_call_chunks=[chunk])


def test_a_text_of_them_holds_no_call_and_no_object() -> None:
    assert whole_call(CALL, ["add"]) is None
    assert written_calls(CALL) is None
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert complete_json('{"a":' * 5_000, schema, "") is None


def test_a_teachers_call_of_them_is_invalid_and_whole() -> None:
    (call,) = without_cut_calls(reply(), TOOLS).invalid_tool_calls
    assert (call["name"], call["args"]) == ("add", NESTED)
    (chunk,) = tool_call_chunk_of(reply(), "").message.tool_call_chunks
    assert chunk["args"].endswith(NESTED)


def test_changes_of_a_teacher_prompt_are_undone_in_them() -> None:
    prompt = PreparedPrompt(messages=[], restore=lambda text: text.replace("[", "]"))
    (chunk,) = prompt.restored(reply()).tool_call_chunks
    assert chunk["args"] == NESTED.replace("[", "]")
