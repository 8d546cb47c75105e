"""Measure the server under 1, 16 and 64 users, beside the same chain without it.

``python -m benchmarks.serve`` starts ``langchain-gkt serve`` with the embedded pair. Each user
streams questions of its own with settings of its own. ``--soak 600`` adds ten minutes under load in
which the server's memory is watched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.demo.pair import STUDENT, demo_teacher
from langchain_gkt.evaluation.tasks.word_problems import sample
from langchain_gkt.serving.run import bind

QUESTIONS = [problem.question for problem in sample(7, 200)]
Ask = Callable[[int, str], AsyncIterator[str]]
"""Streams the answer of a user, given its number and its question."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a number of users saw; times in seconds."""

    way: str
    users: int
    answers: int
    first_p50: float
    first_p95: float
    whole_p50: float
    whole_p95: float
    answers_per_second: float


def settings_of(user: int) -> dict[str, Any]:
    """Return the settings of a user: no two of the first 64 have the same."""
    return {
        "guidance_tokens": 4 + user % 16,
        "temperature": (0.0, 0.3, 0.7, 1.0)[user // 16 % 4],
        "max_tokens": 60,
    }


async def measure(way: str, ask: Ask, *, users: int, each: int) -> Point:
    """Let users ask one question after the other, all at the same time."""
    firsts: list[float] = []
    wholes: list[float] = []

    async def one(user: int) -> None:
        for turn in range(each):
            began = time.perf_counter()
            first = None
            async for text in ask(user, QUESTIONS[(user * each + turn) % len(QUESTIONS)]):
                if text and first is None:
                    first = time.perf_counter() - began
            assert first is not None, "an answer was empty"
            firsts.append(first)
            wholes.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(users)))
    seconds = time.perf_counter() - began
    return Point(
        way=way,
        users=users,
        answers=len(wholes),
        first_p50=_quantile(firsts, 50),
        first_p95=_quantile(firsts, 95),
        whole_p50=_quantile(wholes, 50),
        whole_p95=_quantile(wholes, 95),
        answers_per_second=len(wholes) / seconds,
    )


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Run the server in a process of its own; give its address and its process id."""
    with bind("127.0.0.1", 0) as listener:
        port = int(listener.getsockname()[1])
    command = [sys.executable, "-m", "langchain_gkt", "serve", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            if not any("Started" in line for line in server.stderr):
                raise RuntimeError("the server did not start")
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield f"http://127.0.0.1:{port}/v1", server.pid
        finally:
            server.terminate()


def through(client: AsyncOpenAI) -> Ask:
    """Ask over the server."""

    async def ask(user: int, question: str) -> AsyncIterator[str]:
        own = settings_of(user)
        stream = await client.chat.completions.create(
            model="langchain-gkt",
            messages=[{"role": "user", "content": question}],
            stream=True,
            max_tokens=own["max_tokens"],
            temperature=own["temperature"],
            extra_body={"gkt": {"guidance_tokens": own["guidance_tokens"]}},
        )
        async for chunk in stream:
            yield (chunk.choices[0].delta.content or "") if chunk.choices else ""

    return ask


def directly(chain: GuidedKnowledgeTransferChain) -> Ask:
    """Ask the chain in this process."""

    async def ask(user: int, question: str) -> AsyncIterator[str]:
        async for chunk in chain.astream(question, **settings_of(user)):
            yield str(chunk.text)

    return ask


def client_of(url: str) -> AsyncOpenAI:
    """Return a client that never waits for a connection of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    http = httpx.AsyncClient(limits=limits, timeout=600, trust_env=False)
    return AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http)


@contextmanager
def slow_clients(url: str, count: int) -> Iterator[None]:
    """Ask for streams and read a byte of each every second."""
    port = int(url.split(":")[2].split("/")[0])
    body = json.dumps(
        {
            "model": "langchain-gkt",
            "stream": True,
            "messages": [{"role": "user", "content": QUESTIONS[0]}],
        }
    )
    request = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    sockets, over = [], threading.Event()
    for _ in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        one.connect(("127.0.0.1", port))
        one.sendall(request.encode())
        sockets.append(one)

    def drip() -> None:
        while not over.wait(1):
            for one in sockets:
                one.recv(1)

    reader = threading.Thread(target=drip)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        for one in sockets:
            one.close()


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process, as Linux tells it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def soak(ask: Ask, pid: int, *, seconds: float, users: int) -> list[dict[str, float]]:
    """Keep users asking, and watch the server's memory and open files."""
    began, answers = time.monotonic(), 0
    found: list[dict[str, float]] = []

    async def one(user: int) -> None:
        nonlocal answers
        turn = user
        while time.monotonic() - began < seconds:
            async for _ in ask(user, QUESTIONS[turn % len(QUESTIONS)]):
                pass
            answers, turn = answers + 1, turn + users

    async def watch() -> None:
        while time.monotonic() - began < seconds:
            await asyncio.sleep(seconds / 20)
            found.append(
                {
                    "seconds": round(time.monotonic() - began, 1),
                    "answers": answers,
                    "mib": round(memory_mib(pid), 1),
                    "files": len(os.listdir(f"/proc/{pid}/fd")),
                }
            )

    await asyncio.gather(watch(), *map(one, range(users)))
    return found


async def _with_client(url: str, work: Callable[[Ask], Awaitable[Any]]) -> Any:
    async with client_of(url) as client:
        return await work(through(client))


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--each", type=int, default=6, help="questions of each user")
    parser.add_argument("--slow-clients", type=int, default=8)
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    points: list[Point] = []
    memory: list[dict[str, float]] = []

    def both(way: str, users: int) -> Callable[[Ask], Awaitable[Point]]:
        each = max(options.each, 20 // users)  # enough answers for a quantile
        return lambda ask: measure(way, ask, users=users, each=each)

    console = Console(width=100)
    with demo_teacher() as teacher:
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=str(STUDENT))

        async def without(users: int) -> Point:
            await measure("warm", directly(chain), users=1, each=2)
            return await both("chain", users)(directly(chain))

        with served() as (url, pid):
            asyncio.run(_with_client(url, both("warm", 1)))
            for users in options.users:
                points.append(asyncio.run(_with_client(url, both("server", users))))
                points.append(asyncio.run(without(users)))
            with slow_clients(url, options.slow_clients):
                name = f"server, {options.slow_clients} slow clients more"
                points.append(asyncio.run(_with_client(url, both(name, options.users[0]))))
            if options.soak:
                run = lambda ask: soak(ask, pid, seconds=options.soak, users=8)  # noqa: E731
                memory = asyncio.run(_with_client(url, run))
        chain.student.close()
    table = Table("way", "users", "first p50", "p95", "whole p50", "p95", "answers/s")
    for point in points:
        times = (point.first_p50, point.first_p95, point.whole_p50, point.whole_p95)
        row = [point.way, str(point.users), *(f"{1000 * value:.0f} ms" for value in times)]
        table.add_row(*row, f"{point.answers_per_second:.1f}")
    console.print(table)
    for line in memory:
        console.print(line)
    if options.json:
        found = {"points": [asdict(point) for point in points], "soak": memory}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
