"""What is refused names the field as its own API calls it, and nobody is paid for it."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessageChunk
from support.models.dripping import Dripping
from support.models.scripted import ToolTeacher

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.serving.api.chat_completions import ChatAnswer
from langchain_gkt.serving.app import build_app

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HELLO = [{"role": "user", "content": "Hello you"}]
BAD_SCHEMAS = [{"type": "strin"}, {"type": "object", "properties": 5}, {"$ref": "#/nope"}]


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def client(log) -> httpx.AsyncClient:
    chain = GuidedKnowledgeTransferChain(teacher=ToolTeacher(log=log), student=Dripping())
    price = {"teacher_price": Price(input_mtok=1, output_mtok=1)}
    app = build_app(chain, prices=price, allowed_hosts=["server"])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


async def ask(client: httpx.AsyncClient, path: str, body: str | dict[str, Any]) -> httpx.Response:
    if isinstance(body, dict):
        asked = {"messages": HELLO} if path == CHAT else {"input": "Hello you"}
        body = json.dumps({"model": "langchain-gkt-teacher", **asked, **body})
    return await client.post(path, content=body, headers={"content-type": "application/json"})


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    turn = {"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}
    return {"messages": [*HELLO, turn, {"role": "tool", "tool_call_id": "c", "content": "3"}]}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_what_is_no_number_in_json_is_refused(client, log, number) -> None:
    # Python reads all of these, and no provider does.
    for body in (
        f'{{"model": "m", "temperature": {number}, "messages": []}}',
        f'{{"model": "m", "messages": [{{"role": "user", "content": [{{"x": {number}}}]}}]}}',
        f'{{"model": "m", "input": "x", "tools": [{{"parameters": {{"const": {number}}}}}]}}',
    ):
        reply = await ask(client, CHAT, body)
        assert (reply.status_code, "NaN" in reply.text) == (400, True)
    reply = await ask(client, CHAT, call(f'{{"a": {number}}}'))
    assert reply.json()["error"]["param"] == "messages[1].tool_calls[0].function.arguments"
    assert not log


@pytest.mark.parametrize("arguments", ["null", " null ", None, ""])
async def test_a_call_may_have_null_arguments(client, log, arguments) -> None:
    assert (await ask(client, CHAT, call(arguments))).status_code == 200
    assert log[-1]["messages"][1].tool_calls[0]["args"] == {}


@pytest.mark.parametrize("schema", BAD_SCHEMAS)
@pytest.mark.parametrize("model", ["langchain-gkt", "langchain-gkt-teacher"])
async def test_a_schema_that_is_none_is_refused_before_the_teacher_is_paid(
    client, log, schema, model
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = await ask(client, CHAT, {"model": model, "response_format": form})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format")
    form = {"type": "json_schema", "name": "x", "schema": schema}
    reply = await ask(client, RESPONSES, {"model": model, "text": {"format": form}})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "text.format")
    assert not log


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"tool_choice": 5, "tools": [{"function": {"name": "f"}}]}, "tool_choice"),
        (CHAT, {"gkt": []}, "gkt"),
        (CHAT, {"gkt": {"budget_usd": "much"}}, "gkt.budget_usd"),
        (CHAT, {"gkt": {"budget_usd": -1}}, "gkt.budget_usd"),
        (CHAT, {"gkt": {"guidance_token": 5}}, "gkt.guidance_token"),
        (CHAT, {"gkt": {"teacher_prompt": "last_turns"}}, "gkt.teacher_prompt"),
        (CHAT, {"gkt": {"teacher_prompt": [None]}}, "gkt.teacher_prompt"),
        (CHAT, {"stop": {}}, "stop"),
        (CHAT, {"top_q": 1}, "top_q"),
        (CHAT, {"x" * 5000: 1}, "x" * 100 + "..."),
        (CHAT, {"messages": [None]}, "messages[0]"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": 5}]}]},
         "messages[0].content[0].refusal"),
        (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
        (RESPONSES, {"max_tokens": 5}, "max_tokens"),
        (RESPONSES, {"input": []}, "input"),
        (RESPONSES, {"input": " "}, "input"),
        (RESPONSES, {"input": 5}, "input"),
        (RESPONSES, {"input": [None]}, "input[0]"),
        (RESPONSES, {"input": [{"role": "assistant", "content": "x"}]}, "input"),
        (RESPONSES, {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
         "input[0].call_id"),
        (RESPONSES, {"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]},
         "input[0].name"),
        (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]},
         "input[0].output"),
        (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": [5]}]},
         "input[0].output[0]"),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": "x"}]},
         "input[0].call_id"),
        (RESPONSES, {"instructions": 5}, "instructions"),
        (RESPONSES, {"text": {"format": "x"}}, "text.format"),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        (RESPONSES, {"text": "x"}, "text"),
        (RESPONSES, {"tools": [{"name": "f", "parameters": 5}]}, "tools[0].parameters"),
        (RESPONSES, {"tools": [{"name": "f", "parameters": {"$ref": "#"}}]},
         "tools[0].parameters"),
    ],
)  # fmt: skip
async def test_the_field_has_the_name_that_its_api_gives_it(
    client, log, path, fields, param
) -> None:
    reply = await ask(client, path, fields)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(param)
    # Neither pydantic's own words, nor the other API's names.
    assert not re.search(r"\[type=|dict\[|valid dictionary|extract fields", error["message"])
    assert path == CHAT or not re.search("messages|max_completion|tool_calls", error["message"])
    assert len(error["message"]) < 1500
    assert not log


@pytest.mark.parametrize("budget", [0.5, "0.5", 1])
async def test_a_budget_may_be_a_number(client, budget) -> None:
    assert (await ask(client, CHAT, {"gkt": {"budget_usd": budget}})).status_code == 200


async def test_nulls_inside_gkt_mean_the_default(client) -> None:
    gkt = {"guidance": {"cut": None, "ask": None, "tokens": None}, "guidance_tokens": None}
    assert (await ask(client, CHAT, {"gkt": gkt})).status_code == 200


async def test_a_wrong_host_is_told_so_in_the_form_of_the_api(client) -> None:
    for path in ("/v1/models", "/health", CHAT):
        for host in ("evil.test", "server.evil.test", ""):
            reply = await client.get(path, headers={"host": host})
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_host")
            assert "--allowed-hosts" in reply.json()["error"]["message"]
    assert (await client.get("/health", headers={"host": "SERVER:80"})).status_code == 200


async def test_a_long_name_of_a_model_is_not_repeated(client) -> None:
    reply = await ask(client, CHAT, {"model": "x" * 5000})
    assert (reply.status_code, len(reply.text) < 600) == (404, True)


def test_calls_in_chunks_of_their_own_are_numbered_on() -> None:
    def chunk(name: str) -> AIMessageChunk:
        piece = {"type": "tool_call_chunk", "id": name, "name": name, "args": "{}", "index": 0}
        return AIMessageChunk("", tool_call_chunks=[piece])

    form = ChatAnswer("m", include_usage=False)
    events = [*form.more(chunk("a")), *form.more(chunk("b"))]
    deltas = [json.loads(one.removeprefix("data: "))["choices"][0]["delta"] for one in events]
    assert [delta["tool_calls"][0]["index"] for delta in deltas] == [0, 1]


async def test_calls_may_be_billed_as_a_tier() -> None:
    chain = GuidedKnowledgeTransferChain(teacher=ToolTeacher(), student=Dripping())
    price = Price(input_mtok=1, output_mtok=1, tiers={"batch": "0.5"})
    usd = []
    for tier in (None, "batch"):
        app = build_app(chain, prices={"teacher_price": price, "tier": tier})
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            usd.append(float((await ask(client, CHAT, {})).json()["gkt"]["usd"]))
    assert usd[1] == usd[0] / 2 > 0
