"""How requests end: clients that leave or do not read, spent budgets, signals, a teacher's no."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from support.models.dripping import Dripping
from support.models.scripted import ToolTeacher, save_scripted
from support.models.tiny import wait_until
from support.servers.billing_server import BillingServer, Plan
from support.servers.served import served

from langchain_gkt import Budget, GuidedKnowledgeTransferChain, HuggingFaceStudent, Price
from langchain_gkt.demo.pair import STUDENT, demo_teacher
from langchain_gkt.serving.app import build_app
from langchain_gkt.serving.keys import APIKey

HELLO = [{"role": "user", "content": "Hello you"}]
PRICE = Price(input_mtok="1", output_mtok="2")


def alone(model: Dripping) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=model, student=model, mode="student")


def client_of(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def ask(client, model="langchain-gkt", **given):
    return client.chat.completions.create(model=model, **{"messages": HELLO, **given})


def running(app) -> float:
    return app.state.metrics.registry.get_sample_value("gkt_requests_running")


def test_a_client_that_leaves_ends_the_work() -> None:
    model = Dripping(words=400, seconds=0.01)
    app = build_app(alone(model))
    with served(app) as url, client_of(url) as client:
        stream = ask(client, "langchain-gkt-student", stream=True)
        next(iter(stream))
        stream.close()
        wait_until(lambda: running(app) == 0)
        assert len(model.made) < 300
        with pytest.raises(openai.APITimeoutError):  # one that is not streamed
            ask(client.with_options(timeout=0.3), "langchain-gkt-student")
        wait_until(lambda: running(app) == 0)


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_no_student() -> None:
    # More than the sockets of both sides can hold.
    model = Dripping(words=100, padding=80_000)
    app = build_app(alone(model))
    body = json.dumps({"model": "langchain-gkt-student", "messages": HELLO, "stream": True})
    with served(app) as url, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", httpx.URL(url).port))
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}{body}".encode())
        wait_until(lambda: len(model.made) == 100, 20)
        assert running(app) == 1  # the student has ended, and the client has read nothing yet
        slow.close()
        wait_until(lambda: running(app) == 0)


def test_a_spent_budget_leaves_the_answer_to_the_student(tmp_path) -> None:
    student = HuggingFaceStudent(model=save_scripted(tmp_path))
    chain = GuidedKnowledgeTransferChain(teacher=ToolTeacher(), student=student, guidance_tokens=8)
    keys = [
        APIKey(name="rich", secret="sk-rich"),
        APIKey(name="poor", secret="sk-poor", budget=Budget(usd="0.00004", on_exceeded="student")),
    ]
    with served(build_app(chain, keys=keys, prices={"teacher_price": PRICE})) as url:
        poor = client_of(url, "sk-poor")
        replies = [ask(poor) for _ in range(3)]
        assert [reply.gkt["teacher"]["calls"] for reply in replies] == [1, 0, 0]
        assert replies[-1].gkt["fallback"] == "BudgetExceeded"
        assert len({reply.choices[0].message.content for reply in replies}) == 1
        # A key's budget is its own.
        assert ask(client_of(url, "sk-rich")).gkt["teacher"]["calls"] == 1
        # One request may have a budget, too.
        with pytest.raises(openai.RateLimitError, match=r"per_call_usd") as caught:
            ask(client_of(url, "sk-rich"), extra_body={"gkt": {"budget_usd": "0.000001"}})
        assert caught.value.code == "insufficient_quota"
    student.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_of_the_teacher_reaches_the_client(student, stream) -> None:
    with BillingServer() as provider:
        teacher = ChatOpenAI(
            base_url=provider.base_url, api_key="local", model="m", max_retries=0, stream_usage=True
        )
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=6)
        with served(build_app(chain)) as url, client_of(url) as client:
            provider.reset(Plan(fail=429, retry_after="2.5"))
            with pytest.raises(openai.RateLimitError, match="provider limits the rate") as caught:
                ask(client, stream=stream)
            assert caught.value.code == "teacher_rate_limited"
            assert caught.value.response.headers["retry-after"] == "3"
            provider.reset(Plan(fail=500))
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client, stream=stream)
            assert caught.value.status_code == 502
            assert "retry-after" not in caught.value.response.headers


@pytest.mark.slow
def test_the_embedded_pair_continues_an_answer_and_says_that_it_knows_no_tools() -> None:
    question = "Ben has 29 shells. He wins 15. He doubles them. How many shells does Ben have now?"
    begun = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "Plan: 29 plus"},
    ]
    more = {"continue_final_message": True}
    with demo_teacher() as teacher:
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher, student=str(STUDENT), guidance_tokens=6
        )
        with served(build_app(chain)) as url, client_of(url) as client:
            for model in ("langchain-gkt", "langchain-gkt-teacher", "langchain-gkt-student"):
                reply = ask(client, model, messages=begun, extra_body=more)
                assert reply.choices[0].message.content.endswith("= 88. The answer is 88."), model
                assert not reply.choices[0].message.content.startswith("Plan")
            tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
            with pytest.raises(openai.BadRequestError, match="teacher refuses this request"):
                ask(client, tools=[tool])
        chain.student.close()


@pytest.mark.slow
def test_a_signal_finishes_streams_within_its_time() -> None:
    finishes = {"20": True, "1": False}
    command = [sys.executable, "-m", "support.models.dripping", *finishes]
    tests = Path(__file__).parents[2]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tests}
    with subprocess.Popen(command, **options) as servers:
        for _ in finishes:
            seconds, pid, port = servers.stdout.readline().split()
            url = f"http://127.0.0.1:{port}/v1"
            with openai.OpenAI(base_url=url, api_key="none", max_retries=5) as client:
                stream = iter(ask(client, "langchain-gkt-student", stream=True))
                next(stream)
                next(stream)
                os.kill(int(pid), signal.SIGTERM)
                try:
                    parts = [one.choices[0].delta.content or "" for one in stream if one.choices]
                    whole = "word19" in "".join(parts)
                except (openai.APIError, httpx.HTTPError):
                    whole = False
                assert whole is finishes[seconds]
        assert servers.wait(60) == 0
        assert "Traceback" not in servers.stderr.read()
