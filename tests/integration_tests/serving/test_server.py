"""The demo's server, asked with the OpenAI client."""

from __future__ import annotations

import json
import operator
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import openai
import pytest
from fastapi.testclient import TestClient
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from support.models.fakes import MODELS
from support.models.scripted import add, save_scripted
from support.programs.processes import ends

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.demo.cloud import LocalCloud
from langchain_gkt.demo.server import ChatCompletionService, build_app, main

QUESTION = "Ben has 29 shells. He wins 15. He doubles them. How many shells does Ben have now?"
ANSWER = "Plan: 29 plus 15, times 2. 29 + 15 = 44. 44 * 2 = 88. The answer is 88."


@pytest.fixture(scope="module")
def client(cloud):
    with openai.OpenAI(base_url=cloud.base_url, api_key="local", max_retries=0) as made:
        yield made


def ask(client, content=QUESTION, **kwargs):
    messages = kwargs.pop("messages", [{"role": "user", "content": content}])
    return client.chat.completions.create(model="demo-teacher", messages=messages, **kwargs)


def test_an_answer_and_its_usage(client) -> None:
    reply = ask(client)
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_both_limit_fields(client, field) -> None:
    reply = ask(client, **{field: 9})
    assert reply.usage.completion_tokens == 9
    assert reply.choices[0].finish_reason == "length"
    assert ANSWER.startswith(reply.choices[0].message.content)


def test_nulls_and_tiny_temperatures_are_the_default(client) -> None:
    reply = ask(client, temperature=1e-40, extra_body={"n": None, "top_p": None, "stream": None})
    assert reply.choices[0].message.content == ANSWER


def test_stop_is_trimmed(client) -> None:
    reply = ask(client, stop=["times 2"])
    assert reply.choices[0].message.content == "Plan: 29 plus 15, "
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("with_usage", [True, False])
def test_a_stream_is_the_answer(client, with_usage) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    chunks = list(ask(client, stream=True, **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    usages = [c.usage for c in chunks if c.usage]
    assert usages == ([ask(client).usage] if with_usage else [])


def test_seeds_make_samples_repeat(client) -> None:
    def draw(seed):
        reply = ask(client, temperature=2.0, seed=seed, max_tokens=30, content="Hm?")
        return reply.choices[0].message.content

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) > 1


def test_requests_at_once_do_not_mix(client) -> None:
    questions = [QUESTION.replace("29", str(n)) for n in range(21, 27)]
    alone = [ask(client, q).choices[0].message.content for q in questions]
    with ThreadPoolExecutor(6) as pool:
        assert [
            r.choices[0].message.content for r in pool.map(lambda q: ask(client, q), questions)
        ] == alone
    assert len(set(alone)) == 6


def test_a_begun_answer_is_continued(client) -> None:
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Plan: 29 plus"},
    ]
    reply = ask(client, messages=messages, extra_body={"continue_final_message": True})
    assert "Plan: 29 plus" + reply.choices[0].message.content == ANSWER


def test_text_that_looks_like_control_tokens_is_text(client) -> None:
    tricky = ask(client, QUESTION + "<|end|>", max_tokens=1).usage.prompt_tokens
    assert tricky >= ask(client, max_tokens=1).usage.prompt_tokens + 3


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"messages": []}, "messages"),
        ({"n": 2}, "n:"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"seed": 2**70}, "seed"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"extra_body": {"continue_final_message": True}}, "continue_final_message"),
        ({"content": "1 " * 900}, "context holds 512"),
        ({"content": " "}, "prompt is empty"),
        ({"messages": [{"role": "king", "content": "x"}]}, "king"),
    ],
)
def test_bad_requests_are_named(client, request_, says) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        ask(client, **request_)
    assert caught.value.body["type"] == "invalid_request_error"


def test_closing_a_stream_stops_the_work(client, cloud) -> None:
    def health() -> dict[str, int]:
        with urllib.request.urlopen(cloud.base_url.removesuffix("/v1") + "/health") as reply:
            return json.load(reply)

    before = health()["streamed_chunks"]
    whole = len(list(ask(client, stream=True)))
    made = health()["streamed_chunks"]
    assert made - before >= whole - 1 > 30
    stream = ask(client, stream=True)
    next(iter(stream))
    stream.close()
    for _ in range(100):
        if not health()["active"]:
            break
        time.sleep(0.05)
    assert health()["active"] == 0
    assert health()["streamed_chunks"] - made < whole - 5


def stand_in(tmp_path, monkeypatch, code: str) -> None:
    """Let the server's process run this where it loads torch, which takes long."""
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)  # `LocalCloud` hands it on


HEALTHY = """
import http.server

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

server = http.server.HTTPServer(("127.0.0.1", 0), Healthy)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""


def test_the_server_ends_with_its_block(tmp_path, monkeypatch) -> None:
    stand_in(tmp_path, monkeypatch, HEALTHY)
    cloud = LocalCloud(MODELS / "teacher")
    with pytest.raises(KeyboardInterrupt), cloud:
        assert cloud.base_url
        pid = cloud.pid
        raise KeyboardInterrupt
    assert ends(pid)
    with pytest.raises(RuntimeError, match="with statement"):
        cloud.base_url  # noqa: B018


@pytest.mark.slow
def test_the_server_loads_the_type_asked_for_and_ends_with_a_killed_parent() -> None:
    code = (
        "import sys, time; from langchain_gkt.demo.cloud import LocalCloud\n"
        "with LocalCloud(sys.argv[1], dtype='bfloat16') as cloud:\n"
        "    print(cloud.pid, cloud.base_url, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(MODELS / "teacher")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid, url = parent.stdout.readline().split()
        assert chat(url).invoke(QUESTION).text
        parent.send_signal(signal.SIGKILL)
    assert ends(int(pid))


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="folder="):
        LocalCloud(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        LocalCloud(tmp_path)
    monkeypatch.setattr(sys, "argv", ["server", str(MODELS / "teacher"), "--dtype", "int7"])
    with pytest.raises(ValueError, match="dtype='int7' is no type of weights"):
        main()
    # Its process is asked for the same, and its last words are told.
    stand_in(tmp_path, monkeypatch, "import sys; sys.exit(f'no torch for {sys.argv[1:]}')")
    with (
        pytest.raises(RuntimeError, match=r"did not start:\nno torch for .*'--dtype', 'int7'"),
        LocalCloud(MODELS / "teacher", dtype="int7"),
    ):
        pass


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory):
    """A server in this process, because its model's class is known only here."""
    student = HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))
    with TestClient(build_app(ChatCompletionService(student, "demo-teacher", 0.0))) as http:
        yield chat("http://testserver/v1", http_client=http)
    student.close()


def chat(base_url: str, name: str = "demo-teacher", **options) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=base_url, api_key="local", model=name, stream_usage=True, max_retries=0, **options
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_called_and_their_results_read(tool_model, streamed) -> None:
    bound = tool_model.bind_tools([add])

    def ask_it(messages) -> AIMessage:
        if not streamed:
            return bound.invoke(messages)
        chunks = list(bound.stream(messages))
        return reduce(operator.add, chunks[1:], chunks[0])

    question = HumanMessage("please add 3 and 4")
    asked = ask_it([question])
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 3, "b": 4})
    assert asked.response_metadata["finish_reason"] == "tool_calls"
    assert asked.usage_metadata["output_tokens"] > 5
    answer = ask_it([question, asked, ToolMessage("7", tool_call_id=call["id"])])
    assert "7" in answer.text
    assert not answer.tool_calls
    assert "Hello" in ask_it([HumanMessage("Hello you")]).text


def test_tools_that_the_template_does_not_know_are_refused(cloud) -> None:
    with pytest.raises(openai.BadRequestError, match=r"tools: the chat template .* no place"):
        chat(cloud.base_url).bind_tools([add]).invoke("please add 3 and 4")
