"""The server over a real socket, asked by the clients that people have."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from support.models.scripted import ToolTeacher, add, save_scripted
from support.models.tiny import wait_until
from support.servers.served import served

from langchain_gkt import (
    Budget,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    Price,
    remote_student,
)
from langchain_gkt.cli.options import ModelOptions, ServeOptions
from langchain_gkt.serving.app import build_app
from langchain_gkt.serving.keys import APIKey
from langchain_gkt.serving.run import bind

ANSWER = "Hello there, and well met. This is what I have to say about it, and no more than that."
HELLO = [{"role": "user", "content": "Hello you"}]
KEYS = [
    APIKey(name="ada", secret="sk-ada"),
    APIKey(name="poor", secret="sk-poor", budget=Budget(usd="0.000001")),
    APIKey(name="slow", secret="sk-slow", requests_per_minute=1),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    student = HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))
    chain = GuidedKnowledgeTransferChain(teacher=ToolTeacher(), student=student, guidance_tokens=8)
    price = Price(input_mtok="1", output_mtok="2")
    yield build_app(chain, keys=KEYS, prices={"teacher_price": price}, max_body_bytes=20_000)
    student.close()


@pytest.fixture(scope="module")
def url(app):
    with served(app) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="sk-ada", max_retries=0) as made:
        yield made


def ask(client, model="langchain-gkt", **given):
    return client.chat.completions.create(model=model, **{"messages": HELLO, **given})


def test_the_pair_and_both_models_alone(client) -> None:
    names = [one.id for one in client.models.list()]
    modes = ("", "-teacher", "-student", "-verified")
    assert names == [f"langchain-gkt{mode}" for mode in modes]
    replies = [ask(client, name) for name in names[:3]]
    assert {reply.choices[0].message.content for reply in replies} == {ANSWER}
    pair, teacher, student = (reply.gkt for reply in replies)
    assert (pair["teacher"]["calls"], pair["student"]["calls"]) == (1, 1)
    assert pair["finished_by"] == "student"
    assert 0 < pair["guidance_share"] < 1
    assert pair["usd"] == "0.000026"  # 10 prompt tokens at 1, 8 at 2, by the million
    assert (teacher["student"]["calls"], student["teacher"]["calls"]) == (0, 0)
    usage = replies[0].usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_streams_end_with_usage_and_done(url, client) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage == ask(client).usage
    assert chunks[-1].gkt["teacher"]["calls"] == 1
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-ada") as other:
        stream = await ask(other, stream=True)
        parts = [chunk async for chunk in stream]
        whole = await ask(other)
    assert "".join(c.choices[0].delta.content or "" for c in parts) == ANSWER
    assert not any(chunk.usage for chunk in parts)
    assert whole.choices[0].message.content == ANSWER
    raw = httpx.post(
        f"{url}/chat/completions",
        json={"model": "langchain-gkt", "messages": HELLO, "stream": True},
        headers={"Authorization": "Bearer sk-ada", "x-request-id": "mine-1"},
    )
    assert raw.text.endswith("data: [DONE]\n\n")
    assert raw.headers["x-request-id"] == "mine-1"


def test_options_of_a_request(client) -> None:
    short = ask(client, max_tokens=5)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 5)
    assert ask(client, stop="well").choices[0].message.content == "Hello there, and "
    none = ask(client, extra_body={"gkt": {"guidance_tokens": 0}}, seed=4, top_p=0.9)
    assert none.gkt["teacher"]["calls"] == 0
    never = ask(client, extra_body={"gkt": {"guidance": {"ask": "never"}}})
    assert never.gkt["guidance"] == ""
    begun = [*HELLO, {"role": "assistant", "content": "Hello there,"}]
    rest = ask(
        client,
        "langchain-gkt-student",
        messages=begun,
        extra_body={"continue_final_message": True},
    )
    assert "Hello there," + rest.choices[0].message.content == ANSWER
    schema = {"type": "object", "properties": {"words": {"type": "string", "maxLength": 20}}}
    schema["required"] = ["words"]
    form = {"type": "json_schema", "json_schema": {"name": "note", "schema": schema}}
    assert "words" in json.loads(ask(client, response_format=form).choices[0].message.content)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"logprobs": True}, "logprobs: .* leave it out"),
        ({"n": 2}, "n: "),
        ({"stream_options": {"include_usage": True}}, "stream=true"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "continue_final_message"),
        ({"extra_body": {"top_q": 1}}, "did you mean 'top_p'"),
        ({"extra_body": {"gkt": {"guidance_token": 1}}}, "did you mean 'guidance_tokens'"),
        ({"extra_body": {"gkt": {"guidance": "policy.json"}}}, r"gkt\.guidance"),
        ({"messages": [{"role": "user", "content": " "}], "stream": True}, "prompt is empty"),
    ],
)
def test_bad_requests_name_the_field(client, given, says) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        ask(client, **given)
    assert caught.value.body["type"] == "invalid_request_error"


def test_who_may_ask(url, client) -> None:
    with pytest.raises(openai.NotFoundError, match="this server has langchain-gkt,"):
        ask(client, "gpt-4o")
    with pytest.raises(openai.AuthenticationError, match="key is wrong"):
        ask(client.with_options(api_key="sk-eve"))
    assert httpx.get(f"{url}/models").json()["error"]["code"] == "invalid_api_key"
    with pytest.raises(openai.RateLimitError, match=r"Budget\.usd") as caught:
        ask(client.with_options(api_key="sk-poor"))
    assert caught.value.code == "insufficient_quota"
    ask(client.with_options(api_key="sk-slow"))
    with pytest.raises(openai.RateLimitError, match="1 times a minute") as caught:
        ask(client.with_options(api_key="sk-slow"))
    assert caught.value.response.headers["retry-after"] == "60"
    with pytest.raises(openai.APIStatusError, match="more than 20,000 bytes") as caught:
        ask(client, messages=[{"role": "user", "content": "x" * 20_000}])
    assert caught.value.status_code == 413
    with pytest.raises(OSError, match="is in use"):
        bind("127.0.0.1", int(url.split(":")[2].split("/")[0]))


def test_logs_hold_no_content_and_metrics_count(url, client, caplog) -> None:
    caplog.set_level(logging.INFO, "langchain_gkt.serving")
    ask(client)
    wait_until(lambda: caplog.records)  # it is written behind the response
    (line,) = [record.fields for record in caplog.records if record.getMessage() == "request"]
    assert (line["client"], line["status"], line["teacher"]["calls"]) == ("ada", 200, 1)
    assert "Hello" not in str(line)
    text = httpx.get(url.removesuffix("/v1") + "/metrics").text
    assert 'gkt_requests_total{model="langchain-gkt",status="200"}' in text
    assert 'gkt_tokens_total{kind="completion",role="teacher"}' in text
    assert "gkt_requests_waiting 0.0" in text
    assert httpx.get(url.removesuffix("/v1") + "/health").json() == {"status": "ok"}


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(url) -> None:
    body = json.dumps({"model": "langchain-gkt", "messages": HELLO})
    command = ["curl", "-s", "--noproxy", "*", f"{url}/chat/completions", "-d", body]
    command += ["-H", "Authorization: Bearer sk-ada", "-H", "Content-Type: application/json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == ANSWER


def test_the_page_and_its_options(url, capsys, monkeypatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "serve.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("CLIENT_KEY", "sk-ada")
    assert "http://127.0.0.1:8000/v1" in block
    exec(block.replace("http://127.0.0.1:8000/v1", url), {})
    assert ANSWER in capsys.readouterr().out
    known = {field.name.replace("_", "-") for field in fields(ServeOptions)}
    known |= {field.name.replace("_", "-") for field in fields(ModelOptions)}
    assert set(re.findall(r"--([a-z][a-z-]+)", text)) <= known


def test_an_agent_and_a_student_behind_the_server(url) -> None:
    model = ChatOpenAI(base_url=url, api_key="sk-ada", model="langchain-gkt", stream_usage=True)
    state = create_agent(model, [add]).invoke({"messages": [("human", "please add 3 and 4")]})
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text.endswith("the answer to this is: 7.")
    bound = model.bind_tools([add])
    whole = None
    for chunk in bound.stream("please add 3 and 4"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == {"a": 3, "b": 4}
    far = remote_student(model.model_copy(update={"model_name": "langchain-gkt-student"}), "vllm")
    pair = GuidedKnowledgeTransferChain(teacher=ToolTeacher(), student=far, guidance_tokens=6)
    assert pair.invoke("Hello you").text == ANSWER
