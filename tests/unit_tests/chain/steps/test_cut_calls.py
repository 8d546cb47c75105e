"""Tool calls that the limit has cut, whatever the server says; blocks keep their order."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel
from support.entry_points import ENTRY_POINTS, answer, joined
from support.models.saying import Adding, Saying, reply
from support.models.scripted import add

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.teachers.tools import is_cut_tool_call, offered_tools

WHOLE = reply(tokens=20, tool_calls=[{"name": "add", "args": {"a": 2, "b": 3}, "id": "1"}])


@tool
def look(place: str = "here") -> str:
    """Look at a place."""
    return place


@tool
def now() -> str:
    """Tell the time."""
    return "noon"


class Point(BaseModel):
    x: int
    y: int


@tool
def draw(points: list[Point], centre: Point | None = None) -> str:
    """Draw points."""
    return "drawn"


def invalid(arguments: str) -> dict[str, Any]:
    return {"name": "add", "args": arguments, "id": "1", "error": None}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": "2"}


def streamed(*calls: tuple[str, str]) -> list[AIMessageChunk]:
    """What vLLM streams of calls whose arguments are cut: their text, completed by nobody."""
    pieces: list[Any] = [
        {"name": name, "args": text, "id": f"{place}", "index": place}
        for place, (name, text) in enumerate(calls)
    ]
    chunks = [AIMessageChunk("", tool_call_chunks=[piece]) for piece in pieces]
    usage: Any = {"input_tokens": 5, "output_tokens": 8, "total_tokens": 13}
    end = {"finish_reason": "tool_calls"}
    return [*chunks, AIMessageChunk("", usage_metadata=usage, response_metadata=end)]


CUT = {
    "broken": reply(invalid_tool_calls=[invalid('{"a": 2, "b')]),
    "empty": reply(tool_calls=[call("add")]),
    "half": reply(tool_calls=[call("add", a=2)]),
    "the last": reply(tool_calls=[call("add", a=2, b=3), call("add")]),
    "optional": reply(tool_calls=[call("look")]),
    "inside": reply(tool_calls=[call("draw", points=[{"x": 1, "y": 2}, {"x": 1}])]),
    "inside an optional": reply(tool_calls=[call("draw", points=[], centre={"x": 1})]),
    "the name": reply(tool_calls=[call("ad")]),
    "uncounted": AIMessage("", invalid_tool_calls=[invalid('{"a"')]).model_copy(
        update={"response_metadata": {"finish_reason": "tool_calls"}}
    ),
    "stop": reply(reason="stop", tool_calls=[call("add", a=2)]),
    "chunks": streamed(("add", '{"a": 2, "b": 3')),
    "empty chunk": streamed(("add", "")),
    "the last chunk": streamed(("add", '{"a": 2, "b": 3}'), ("look", '{"place": "the ga')),
}


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_cut_call_is_asked_for_again_whatever_the_reason_says(how, cut) -> None:
    teacher = Saying(asked=[], says=lambda limit: CUT[cut] if limit == 8 else WHOLE)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), guidance_tokens=8)
    message = await answer(chain.bind_tools([add, look, draw]), how, "add 2 and 3")
    assert [asked["limit"] for asked in teacher.asked] == [8, None]
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("add", {"a": 2, "b": 3})]
    assert not message.invalid_tool_calls


ASKED_ONCE = {
    "whole": reply(tool_calls=[call("add", a=2, b=3)]),
    "whole inside": reply(tool_calls=[call("draw", points=[{"x": 1, "y": 2}], centre=None)]),
    "no arguments": reply(tool_calls=[call("now")]),
    "below the limit": reply(tokens=7, tool_calls=[call("add", a=2)]),
    "chunks": streamed(("add", '{"a": 2, "b": 3}'), ("now", "")),
}


@pytest.mark.parametrize("said", ASKED_ONCE)
@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_a_whole_call_is_not_asked_for_again(how, said) -> None:
    teacher = Saying(asked=[], says=lambda limit: ASKED_ONCE[said])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), guidance_tokens=8)
    message = await answer(chain.bind_tools([add, look, draw, now]), how, "add 2 and 3")
    assert len(teacher.asked) == 1
    assert message.tool_calls
    assert not message.invalid_tool_calls


@pytest.mark.parametrize("cut", ["empty", "half", "empty chunk", "chunks"])
@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_call_cut_by_the_users_own_limit_is_never_handed_out_as_whole(how, cut) -> None:
    teacher = Saying(asked=[], says=lambda limit: CUT[cut])
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=Adding(), guidance_tokens=8, max_tokens=8
    )
    message = await answer(chain.bind_tools([add, look, draw]), how, "add 2 and 3")
    assert not message.tool_calls
    assert [c["name"] for c in message.invalid_tool_calls] == ["add"]
    assert message.response_metadata["finish_reason"] == "length"


def test_required_properties_are_found_behind_references() -> None:
    point = {"type": "object", "properties": {"x": {}, "y": {}}, "required": ["x", "y"]}
    parameters = {
        "type": "object",
        "properties": {
            "p": {"$ref": "#/$defs/P"},
            "q": {"$ref": "#/$defs/gone"},
            "r": {"$ref": "#/$defs/R"},
        },
        "$defs": {"P": point, "R": {"anyOf": [{"$ref": "#/$defs/R"}]}},
    }
    tools = [{"type": "function", "function": {"name": "plot", "parameters": parameters}}]
    half, whole = {"x": 1}, {"x": 1, "y": 2}
    for found, cut in ((half, True), (whole, False)):
        said = reply(tool_calls=[call("plot", p=found, q=half, r=half)])
        assert is_cut_tool_call(said, 8, tools=tools) is cut


def test_a_reply_without_a_limit_is_never_cut() -> None:
    assert not is_cut_tool_call(CUT["half"], None, tools=offered_tools({"tools": [add]}, ()))


BLOCKS: list[Any] = [
    {"type": "thinking", "thinking": "Two and three.", "signature": "s", "index": 0},
    {"type": "text", "text": "I will add. ", "index": 1},
    {"type": "tool_use", "id": "1", "name": "add", "input": {}, "index": 2},
]
CALL: Any = {"name": "add", "args": '{"a": 2, "b": 3}', "id": "1", "index": 2}


def turn(blocks: list[Any]) -> list[AIMessageChunk]:
    """What Anthropic streams of a tool turn."""
    pieces: list[AIMessageChunk] = []
    for block in blocks:
        if block["type"] == "text":
            halves = (block["text"][:6], block["text"][6:])
            pieces += [AIMessageChunk([{**block, "text": half}]) for half in halves]
        else:
            calls = [CALL] if block["type"] == "tool_use" else []
            pieces.append(AIMessageChunk([block], tool_call_chunks=calls))
    usage: Any = {"input_tokens": 5, "output_tokens": 30, "total_tokens": 35}
    end = {"finish_reason": "tool_use"}
    return [*pieces, AIMessageChunk("", usage_metadata=usage, response_metadata=end)]


def guided(blocks: list[Any], **fields: Any) -> Any:
    teacher = Saying(asked=[], says=lambda limit: turn(blocks))
    fields = {"guidance_tokens": 40, **fields}
    return GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), **fields)


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
@pytest.mark.parametrize("mode", ["guided", "teacher"])
async def test_thinking_stays_in_front_of_the_text(how, mode) -> None:
    message = await answer(guided(BLOCKS, mode=mode).bind_tools([add]), how, "add 2 and 3")
    assert message.content == BLOCKS
    assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}


def test_text_in_front_of_other_blocks_is_shown_at_once() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}, "index": 1}
    blocks = [
        {**BLOCKS[1], "index": 0},
        search,
        {**BLOCKS[1], "index": 2},
        {**BLOCKS[2], "index": 3},
    ]
    chunks = list(guided(blocks).bind_tools([add]).stream("add 2 and 3"))
    assert next(chunk.text for chunk in chunks if chunk.text) == "I "
    assert joined(chunks).content == blocks


@pytest.mark.parametrize(
    "order",
    [(1, 0, 2), (1, 2), (1, 2, 1), (1, 1, 0, 2), (0, 1, 2, 1), (2, 1), (0, 2), (1, 0, 1, 2)],
)
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_blocks_keep_order_and_indices(how, order) -> None:
    blocks = [{**BLOCKS[at], "index": index} for index, at in enumerate(order)]
    for found in (blocks, [{**one, "extras": {"of": one["type"]}} for one in blocks]):
        message = await answer(guided(found).bind_tools([add]), how, "add 2 and 3")
        assert message.content == joined(turn(found)).content
        assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}


def test_a_text_in_a_block_is_continued_in_it() -> None:
    end: Any = {"finish_reason": "length"}
    usage: Any = {"input_tokens": 5, "output_tokens": 8, "total_tokens": 13}
    said = [
        AIMessageChunk([{"type": "text", "text": "I will ", "index": 0}]),
        AIMessageChunk([{"type": "text", "text": "add.", "index": 0}]),
        AIMessageChunk("", usage_metadata=usage, response_metadata=end),
    ]
    teacher = Saying(asked=[], says=lambda limit: said)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), guidance_tokens=8)
    message = joined(chain.bind_tools([add]).stream("Hello"))
    assert message.text == chain.bind_tools([add]).invoke("Hello").text
    assert message.content == [{"type": "text", "text": message.text, "index": 0}]


def test_text_behind_thinking_is_guided_with_tools_bound() -> None:
    end = {"finish_reason": "length"}
    usage: Any = {"input_tokens": 5, "output_tokens": 8, "total_tokens": 13}
    said = [
        AIMessageChunk([BLOCKS[0]]),
        AIMessageChunk([BLOCKS[1]]),
        AIMessageChunk("", usage_metadata=usage, response_metadata=end),
    ]
    teacher = Saying(asked=[], says=lambda limit: said)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), guidance_tokens=8)
    message = joined(chain.bind_tools([add]).stream("Hello"))
    assert message.content == chain.bind_tools([add]).invoke("Hello").content
    assert message.text.startswith("I will add.")
    assert message.text.endswith(" and more.")
