"""Clients that send half a request, too much, or come in crowds; and what stays in memory."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from support.models.dripping import Dripping
from support.models.tiny import wait_until
from support.servers.served import served

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.cli.options import ServeOptions
from langchain_gkt.serving.app import build_app
from langchain_gkt.serving.keys import APIKey
from langchain_gkt.serving.run import default_hosts

BODY = json.dumps(
    {"model": "langchain-gkt-student", "messages": [{"role": "user", "content": "Hello you"}]}
).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def app_of(**options):
    chain = GuidedKnowledgeTransferChain(teacher=Dripping(), student=Dripping(), mode="student")
    return build_app(chain, **options)


@contextmanager
def connected(url: str, sends: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=30) as made:
        made.sendall(sends)
        yield made


def rest_of(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("sends", [b"", b"POST", HEAD[:-2], HEAD])
def test_half_sent_headers_do_not_stay(sends) -> None:
    with served(app_of(), read_seconds=0.2) as url, connected(url, sends) as connection:
        with suppress(ConnectionResetError):
            assert rest_of(connection) == b""  # or it would wait for good
        assert httpx.post(f"{url}/chat/completions", content=BODY).status_code == 400


def test_a_request_that_is_sent_slowly_on_one_connection_is_answered() -> None:
    # Each has its own time: many requests on one connection take longer together.
    whole = HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    with served(app_of(), read_seconds=30) as url, connected(url) as connection:
        for _ in range(3):
            for part in (whole[:10], whole[10:-10], whole[-10:]):
                connection.sendall(part)
                time.sleep(0.01)
            reply = b""
            while b"word9" not in reply:
                reply += connection.recv(65_536)
            assert reply.startswith(b"HTTP/1.1 200")


def test_a_half_sent_body_is_told_that_its_time_is_up() -> None:
    sends = HEAD + b"Content-Length: 500\r\n\r\n{"
    app = app_of(read_seconds=0.2)
    with served(app, read_seconds=0.2) as url, connected(url, sends) as connection:
        reply = rest_of(connection)
    assert reply.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in reply


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("size", [30_000, 5_000_000])
def test_an_oversized_body_gets_413_and_no_reset(chunked, size) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(size // 1000):
            yield b"x" * 1000

    with served(app_of(max_body_bytes=20_000)) as url:
        content = parts() if chunked else b"x" * size
        reply = httpx.post(f"{url}/chat/completions", content=content)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
        expect = f"Expect: 100-continue\r\nContent-Length: {size}\r\n\r\n".encode()
        with connected(url, HEAD + expect) as connection:
            assert rest_of(connection).startswith(b"HTTP/1.1 413")  # without its body


def test_a_wrong_key_with_a_large_body_gets_401_and_no_reset() -> None:
    with served(app_of(keys=[APIKey(name="ada", secret="sk-ada")])) as url:
        reply = httpx.post(f"{url}/chat/completions", content=b"x" * 5_000_000)
    assert reply.status_code == 401


def test_a_crowd_is_refused_and_others_are_answered_later() -> None:
    app = app_of()
    with served(app, max_connections=3) as url:
        address = url.removesuffix("/v1") + "/health"
        crowd = [socket.create_connection(("127.0.0.1", httpx.URL(url).port)) for _ in range(3)]
        wait_until(lambda: httpx.get(address).status_code == 503)
        further = [socket.create_connection(("127.0.0.1", httpx.URL(url).port)) for _ in range(9)]
        for one in further[-3:]:  # beyond twice as many
            one.settimeout(30)
            with suppress(ConnectionResetError):
                assert one.recv(10) == b""
        for one in (*crowd, *further):
            one.close()
        wait_until(lambda: httpx.get(address).status_code == 200)


def test_the_hosts_of_an_address() -> None:
    assert ServeOptions().allowed_hosts is None
    for host in ("127.0.0.1", "::1", "localhost"):
        hosts = default_hosts(host)
        app = app_of(allowed_hosts=hosts)
        with served(app) as url:
            address = f"{url}/models"
            for name in ("127.0.0.1", "localhost:9", "[::1]:9"):
                assert httpx.get(address, headers={"host": name}).status_code == 200
            # A page of evil.test whose name was pointed at this machine.
            assert httpx.get(address, headers={"host": "evil.test"}).status_code == 400
    assert default_hosts("0.0.0.0") == ["*"]
