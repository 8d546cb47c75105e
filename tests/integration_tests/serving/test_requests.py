"""What a request may hold, and what it is told if it holds something else."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from support.models.dripping import Dripping
from support.models.scripted import ToolTeacher
from support.servers.billing_server import BillingServer, Plan, RawReply

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.serving.app import build_app

HELLO = [{"role": "user", "content": "Hello you"}]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
}


class Silent(ToolTeacher):
    """Answers in words, whatever it is asked to call."""

    def _reply(self, messages: Any, stop: Any, kwargs: dict[str, Any]) -> Any:
        return super()._reply(messages, stop, {**kwargs, "tools": []})


def client_of(teacher: Any, **options: Any) -> httpx.AsyncClient:
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Dripping(), mode="teacher")
    transport = httpx.ASGITransport(build_app(chain, **options), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def client(log) -> httpx.AsyncClient:
    return client_of(ToolTeacher(log=log))


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"model": "langchain-gkt-teacher", "messages": HELLO, **fields}
    return await client.post("/v1/chat/completions", json=body)


async def refusal(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    reply = await ask(client, **fields)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert not re.search("https?://|pydantic|langchain.com", error["message"])
    return error


async def test_what_openai_python_dumps_is_understood_with_all_its_nulls(log) -> None:
    turn = ChatCompletionMessage.model_validate({"role": "assistant", "tool_calls": [CALL]})
    messages = [*HELLO, turn.model_dump(), {"role": "tool", "content": "3", "tool_call_id": "c1"}]
    messages[1] |= {"audio": None, "content": None, "name": None}
    with BillingServer() as provider:
        teacher = ChatOpenAI(base_url=provider.base_url, api_key="k", model="m", max_retries=0)
        client = client_of(teacher, prices={"teacher_price": Price(input_mtok=1, output_mtok=1)})
        reply = await ask(
            client,
            messages=messages,
            stream_options=None,
            gkt={"budget_usd": None},
            tools=[{**ADD, "function": {**ADD["function"], "strict": None, "description": None}}],
            tool_choice=None,
            response_format={"type": "text", "json_schema": None},
        )
        assert reply.status_code == 200, reply.text
        (sent,) = provider.requests
    assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == "add"
    assert "audio" not in sent["messages"][1]
    assert "strict" not in sent["tools"][0]["function"]


async def test_nulls_inside_a_schema_are_values(client, log) -> None:
    parameters = {"type": "object", "properties": {"a": {"enum": [1, None], "default": None}}}
    tool = {"type": "function", "function": {"name": "note", "parameters": parameters}}
    assert (await ask(client, tools=[tool])).status_code == 200
    assert log[-1]["tools"][0]["function"]["parameters"]["properties"] == parameters["properties"]


async def test_what_fails_before_the_request_leaves_is_not_billed() -> None:
    class Stumbling(ChatOpenAI):
        def _get_request_payload(self, *args: Any, **kwargs: Any) -> Any:
            payload = super()._get_request_payload(*args, **kwargs)
            return {**payload, "user": object()}  # JSON cannot spell it

    class Broken(ChatOpenAI):
        def _get_request_payload(self, *args: Any, **kwargs: Any) -> Any:
            raise AttributeError("'NoneType' object has no attribute 'get'")

    price = {"teacher_price": Price(input_mtok=1000, output_mtok=1000)}
    with BillingServer() as provider:
        for kind in (Stumbling, Broken):
            teacher = kind(base_url=provider.base_url, api_key="k", model="m", max_retries=0)
            chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Dripping())
            app = build_app(chain, prices=price)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                assert (await ask(client)).status_code == 502
            assert not provider.requests
            report = app.state.costs.report()
            assert report.teacher.known_cost + report.teacher.unreported_cost == 0
        # What was sent, and whose reply cannot be read, may have been billed.
        provider.reset(Plan(raw=lambda _: RawReply(parts=(b"HTTP/1.1 200 OK\r\n\r\n{",))))
        teacher = ChatOpenAI(base_url=provider.base_url, api_key="k", model="m", max_retries=0)
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Dripping())
        app = build_app(chain, prices=price)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            assert (await ask(client)).status_code == 502
        assert app.state.costs.report().teacher.unreported_cost > 0


@pytest.mark.parametrize("turn", [{}, {"content": None}, {"content": ""}, {"content": []}])
async def test_tool_calls_need_no_content(client, log, turn) -> None:
    turn = {"role": "assistant", "tool_calls": [CALL], **turn}
    tool = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    assert (await ask(client, messages=[*HELLO, turn, tool])).status_code == 200
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"}
    assert log[-1]["messages"][1].tool_calls == [call]


async def test_a_call_without_arguments_may_have_an_empty_text(client, log) -> None:
    call = {**CALL, "function": {"name": "now", "arguments": ""}}
    turn = {"role": "assistant", "tool_calls": [call]}
    tool = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
    assert (await ask(client, messages=[*HELLO, turn, tool])).status_code == 200
    assert log[-1]["messages"][1].tool_calls[0]["args"] == {}


def turn_with(arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [CALL, {**CALL, "function": arguments}]}


@pytest.mark.parametrize(
    ("message", "place", "says"),
    [
        (turn_with({"name": "add", "arguments": '{"a": 1'}), ".tool_calls[1].function.arguments",
         "no JSON"),
        (turn_with({"name": "add", "arguments": "[" * 100_000}),
         ".tool_calls[1].function.arguments", "no JSON"),
        (turn_with({"name": "add", "arguments": "[1]"}), ".tool_calls[1].function.arguments",
         "object"),
        (turn_with({"arguments": "{}"}), ".tool_calls[1].function.name", "missing"),
        (turn_with(None), ".tool_calls[1].function", "missing"),
        ({"role": "assistant", "tool_calls": "add"}, ".tool_calls", "list"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, ".audio", "leave it out"),
        ({"role": "assistant", "content": "x", "function_call": {}}, ".function_call",
         "tool_calls"),
        ({"role": "king", "content": "x"}, ".role", "king"),
        ({"content": "x"}, ".role", "None"),
        ({"role": "user"}, ".content", "missing"),
        ({"role": "user", "content": 5}, ".content", "a number"),
        ({"role": "user", "content": ["x"]}, ".content[0]", "type"),
        ({"role": "user", "content": [{"type": "text"}]}, ".content[0].text", "missing"),
        ({"role": "tool", "content": "3"}, ".tool_call_id", "missing"),
        ({"role": "user", "content": "x", "name": 5}, ".name", "a text"),
    ],
)  # fmt: skip
async def test_an_error_names_the_message(client, log, message, place, says) -> None:
    error = await refusal(client, messages=[*HELLO, message, *HELLO])
    assert error["param"] == f"messages[1]{place}"
    assert error["message"].startswith(f"messages[1]{place}")
    assert says in error["message"]
    assert not log


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b'{"model": "\xff"}', {}, 400, "not UTF-8"),
        (b"[" * 100_000, {}, 400, "nested too deeply"),
        (b'{"messages":' * 80_000, {}, 400, "nested too deeply"),
        (b'{"seed": ' + b"1" * 5_000 + b"}", {}, 400, "no JSON"),
        (b"{", {}, 400, "no JSON"),
        (b"", {}, 400, "JSON object"),
        (b"[]", {}, 400, "JSON object"),
        (b"{}", {"content-type": "text/plain"}, 400, "application/json"),
        (gzip.compress(b"{}", mtime=0), {"content-encoding": "gzip"}, 415, "gzip"),
        (gzip.compress(b"{}", mtime=0), {}, 400, "not UTF-8"),
    ],
)
async def test_bodies_that_are_no_json(client, body, headers, status, says) -> None:
    headers = {"content-type": "application/json", **headers}
    reply = await client.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == status
    assert says in reply.json()["error"]["message"]
    assert "path" not in reply.json()["error"]["message"]


async def test_levels_that_json_can_read_but_we_cannot(client) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    error = await refusal(client, messages=[{"role": "user", "content": deep}])
    assert "nested too deeply" in error["message"]


async def test_every_field_of_the_api_is_taken_or_refused_by_name(client) -> None:
    for name in CompletionCreateParamsBase.__annotations__:
        reply = await ask(client, **{name: None} if name not in ("messages", "model") else {})
        assert reply.status_code == 200, name
    hints = {"modalities": ["text"], "verbosity": "low", "reasoning_effort": "high"}
    hints |= {"prompt_cache_retention": "24h", "store": False, "metadata": {"a": "b"}}
    assert (await ask(client, **hints)).status_code == 200
    error = await refusal(client, modalities=["text", "audio"])
    assert (error["param"], "answers are text" in error["message"]) == ("modalities", True)
    for name in ("logprobs", "frequency_penalty", "functions"):
        assert (await refusal(client, **{name: [1]}))["param"] == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"gkt": {"guidance": {"cut": "nowhere"}}}, "gkt.guidance"),
        ({"gkt": {"guidance_tokens": -1}}, "gkt.guidance_tokens"),
        ({"gkt": {"teacher_prompt": [{"prompt": "x"}]}}, "gkt.teacher_prompt"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": "sub"}, "tool_choice"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ],
)
async def test_errors_name_their_field(client, log, fields, param) -> None:
    assert (await refusal(client, **fields))["param"] == param
    assert not log


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "context_length_exceeded", "message": "see https://x.y/z"}),
        (400, {"message": "This model's maximum context length is 8192 tokens."}),
        (413, {"message": "prompt is too long: 9 tokens > 8 maximum"}),
    ],
)
async def test_a_prompt_that_is_too_long_for_the_teacher(status, error) -> None:
    body = json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\n"
    raw = RawReply(parts=(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body,))
    with BillingServer(always=Plan(raw=lambda _: raw)) as provider:
        teacher = ChatOpenAI(base_url=provider.base_url, api_key="k", model="m", max_retries=0)
        found = await refusal(client_of(teacher))
    assert (found["code"], found["param"]) == ("context_length_exceeded", "messages")


A = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}]},
        {"allOf": [{"type": "object"}, {"$ref": "#"}]},
        {**A, "$defs": {"a": A}},
        {**A, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": A}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    ],
)
@pytest.mark.parametrize("model", ["langchain-gkt", "langchain-gkt-teacher"])
async def test_a_schema_without_an_end_is_refused_before_anybody_is_paid(
    client, log, schema, model
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = await refusal(client, model=model, response_format=form)
    assert error["param"] == "response_format"
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    error = await refusal(client, model=model, tools=[tool])
    assert error["param"] == "tools[0].function.parameters"
    assert not log


async def test_a_schema_that_ends_somewhere_is_taken(client) -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, A]}}}
    schema = {**A, "$defs": {"a": {**node, "required": ["next"]}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    assert (await ask(client, tools=[tool])).status_code == 200
    many = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**many, "d60": {"type": "object"}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    assert (await ask(client, tools=[tool])).status_code == 200


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
async def test_a_call_that_is_required_is_never_missing(choice) -> None:
    client = client_of(Silent())
    reply = await ask(client, tools=[ADD], tool_choice=choice)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "tool_call_missing")
    assert reply.headers["x-should-retry"] == "false"
    reply = await ask(client, tools=[ADD], tool_choice=choice, stream=True)
    events = [line for line in reply.text.splitlines() if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "tool_call_missing"
    reply = await ask(client_of(ToolTeacher()), tools=[ADD], tool_choice=choice)
    assert reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "add"


async def test_paths_and_methods(client) -> None:
    for path in ("/health", "/metrics", "/v1/models", "/v1/models/langchain-gkt"):
        reply = await client.head(path)
        assert reply.status_code == 200, path
        reply = await client.put(path)
        assert (reply.status_code, set(reply.headers["allow"].split(", "))) == (
            405,
            {"GET", "HEAD"},
        )
        assert reply.json()["error"]["code"] == "method_not_allowed"
    reply = await client.get("/v1/chat/completions")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    reply = await client.post("/v1/completions")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


async def test_hosts_and_origins() -> None:
    hosts = {"allowed_hosts": ["127.0.0.1", "*.example.com"]}
    client = client_of(ToolTeacher(), **hosts, cors_origins=["https://app.example.com"])
    for host, status in (("127.0.0.1:8000", 200), ("ai.example.com", 200), ("evil.test", 400)):
        assert (await client.get("/v1/models", headers={"host": host})).status_code == status
    page = {"origin": "https://app.example.com", "host": "127.0.0.1"}
    wishes = {"access-control-request-method": "POST"}
    wishes["access-control-request-headers"] = "authorization, content-type"
    asked = await client.options("/v1/chat/completions", headers={**page, **wishes})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "https://app.example.com"
    reply = await client.get("/v1/models", headers=page)
    assert reply.headers["access-control-allow-origin"] == "https://app.example.com"
    other = await client.get("/v1/models", headers={**page, "origin": "https://evil.test"})
    assert "access-control-allow-origin" not in other.headers
    off = await client_of(ToolTeacher()).get("/v1/models", headers=page)
    assert "access-control-allow-origin" not in off.headers
