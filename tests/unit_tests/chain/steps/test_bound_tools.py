"""Tools and their settings that are bound to the teacher already, beside those of the call."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from support.entry_points import ENTRY_POINTS, answer
from support.models.saying import Adding, Saying, reply
from support.models.scripted import add, note

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.teachers.tools import offered_tools, with_bound

SAID = reply(tokens=3, tool_calls=[{"name": "note", "args": {"words": "x"}, "id": "1"}])


@tool("add")
def other_add(first: int) -> int:
    """Add in another way."""
    return first


def bare(limit: Any = None) -> Saying:
    return Saying(asked=[], says=lambda limit: SAID)


def again(teacher: Any) -> Any:
    return teacher.with_retry(stop_after_attempt=2)


def backed(teacher: Any) -> Any:
    return teacher.with_fallbacks([bare()])


WRAPPED = {
    "bind_tools": lambda t: t.bind_tools([add]),
    "bind": lambda t: t.bind(tools=[convert_to_openai_tool(add)]).bind(stop=["x"]),
    "with_retry": lambda t: again(t.bind_tools([add])),
    "with_fallbacks": lambda t: backed(t.bind_tools([add])),
    "configurable": lambda t: t.configurable_fields(
        max_tokens=ConfigurableField(id="max_tokens")
    ).bind(tools=[add]),
    "around a retry": lambda t: again(t).bind(tools=[add]),
}


def names(tools: Any) -> list[str]:
    return [t["function"]["name"] if isinstance(t, dict) else t.name for t in tools]


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_the_teacher_sees_its_own_tools_and_those_of_the_call(how, wrapped) -> None:
    inner = bare()
    teacher = WRAPPED[wrapped](inner)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding())
    await answer(chain.bind_tools([note]), how, "note x")
    assert [names(asked["tools"]) for asked in inner.asked] == [["add", "note"]]
    inner.asked.clear()
    await answer(chain, how, "note x")  # its own stay its own
    assert [names(asked["tools"]) for asked in inner.asked] == [["add"]]


def test_the_calls_tool_wins_where_names_are_equal() -> None:
    inner = bare()
    chain = GuidedKnowledgeTransferChain(
        teacher=inner.bind(tools=[convert_to_openai_tool(other_add)]), student=Adding()
    )
    chain.bind_tools([add, note]).invoke("x")
    [asked] = inner.asked
    assert names(asked["tools"]) == ["add", "note"]
    assert set(asked["tools"][0]["function"]["parameters"]["properties"]) == {"a", "b"}


def test_settings_of_the_call_win_and_others_stay() -> None:
    inner = bare()
    own = {"tool_choice": "add", "parallel_tool_calls": True, "response_format": {"type": "text"}}
    teacher = inner.bind_tools([add], **own)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding())
    chain.bind_tools([note], tool_choice="auto", parallel_tool_calls=False).invoke("x")
    chain.bind_tools([note]).invoke("x")
    named = ("tool_choice", "parallel_tool_calls", "response_format")
    first, second = ({name: asked[name] for name in named} for asked in inner.asked)
    assert first == {**own, "tool_choice": "auto", "parallel_tool_calls": False}
    assert second == own
    # A tool that has to be called has no limit, whoever says that it has to be.
    assert [asked["limit"] for asked in inner.asked] == [40, None]


def test_an_object_that_the_call_asks_for_is_not_contradicted() -> None:
    inner = Saying(asked=[], says=lambda limit: reply('{"a": 1}', reason="stop"))
    teacher = inner.bind(response_format={"type": "json_object"}, seed=1)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding())
    schema = {"title": "A", "type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema}}
    chain.invoke("x", response_format=wanted)
    assert "response_format" not in inner.asked[0]
    assert inner.asked[0]["seed"] == 1


def test_a_cut_call_of_the_teachers_own_tool_is_asked_for_again() -> None:
    cut = reply(tool_calls=[{"name": "add", "args": {"a": 1}, "id": "1"}])
    inner = Saying(asked=[], says=lambda limit: cut if limit == 8 else SAID)
    chain = GuidedKnowledgeTransferChain(
        teacher=inner.bind_tools([add]), student=Adding(), guidance_tokens=8
    )
    assert chain.invoke("x").tool_calls[0]["name"] == "note"
    assert [asked["limit"] for asked in inner.asked] == [8, None]


FORMS: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "anthropic": (
        [{"name": "add", "input_schema": {}}, {"type": "web_search_1", "name": "web_search"}],
        [{"name": "add", "input_schema": {"x": 1}}],
        [{"type": "web_search_1", "name": "web_search"}, {"name": "add", "input_schema": {"x": 1}}],
    ),
    "bedrock": (
        [{"toolSpec": {"name": "add"}}, {"toolSpec": {"name": "mul"}}],
        [{"toolSpec": {"name": "add", "x": 1}}],
        [{"toolSpec": {"name": "mul"}}, {"toolSpec": {"name": "add", "x": 1}}],
    ),
    "google": (
        [{"function_declarations": [{"name": "add"}, {"name": "mul"}]}],
        [{"function_declarations": [{"name": "add", "x": 1}]}],
        [
            {"function_declarations": [{"name": "mul"}]},
            {"function_declarations": [{"name": "add", "x": 1}]},
        ],
    ),
    "without a name": (
        [{"type": "web_search"}],
        [{"type": "web_search"}],
        [{"type": "web_search"}],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_providers_form_is_joined(form) -> None:
    earlier, tools, both = FORMS[form]
    model: Any = with_bound(bare().bind(tools=tools), {"tools": earlier, "seed": 1})
    assert model.kwargs == {"tools": both, "seed": 1}


def test_tools_of_an_unknown_form_are_not_offered_as_functions() -> None:
    bound = {"tools": [{"type": "web_search"}, {"googleSearch": {}}, object(), add]}
    assert names(offered_tools(bound, ())) == ["add"]
