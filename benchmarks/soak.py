"""Many guided calls at once, some of which meet a fault: is every call and token accounted for?

Run it with ``python -m benchmarks.soak``. A server on this machine plays the teacher, keeps a
ledger of what it bills, and fails now and then. The embedded student finishes the answers. Each
call must end with an answer or a `GKTError`, and the tracker must have counted what the ledger
holds. The memory of the last half should be within 5 % of the first half's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_gkt import CostTracker, GKTError, GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.demo.pair import STUDENT

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.runs import left_open
from support.servers.billing_server import BillingServer, Plan

FAULTS = (
    Plan(fail=500),
    Plan(fail=429),
    Plan(fail="drop"),
    Plan(fail="cut"),
    Plan(usage=False),
)
"""A refusal, a rate limit, two broken connections, and a reply without usage."""

_WARM_UP = 0.1  # of the calls: caches fill, and allocators take what they will keep


@dataclass(kw_only=True)
class Soak:
    """What was seen.

    Attributes:
        calls: Calls made.
        outcomes: How many ended in which way.
        requests: Requests that reached the server.
        counted: Calls, prompt and completion tokens as the tracker counted them.
        billed: Prompt and completion tokens of the ledger, as far as the client was told.
        unreported: Calls of the teacher whose tokens the tracker says it does not know.
        untold: Bills in the ledger that the client was not told of.
        left_open: What the tracker still held at the end.
        memory: Resident megabytes, at even distances.
        seconds: How long it took.
    """

    calls: int
    outcomes: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    billed: tuple[int, int] = (0, 0)
    unreported: int = 0
    untold: int = 0
    left_open: dict[str, Any] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        """Mean memory of the last half over that of the first, the warm-up left out."""
        kept = self.memory[round(len(self.memory) * _WARM_UP) :]
        half = len(kept) // 2
        return (sum(kept[-half:]) / half) / (sum(kept[:half]) / half)

    def problems(self) -> list[str]:
        """Say what does not add up."""
        found = []
        if sum(self.outcomes.values()) != self.calls:
            found.append(f"{self.calls} calls, and outcomes of {sum(self.outcomes.values())}")
        strange = [name for name in self.outcomes if name.startswith("strange")]
        if strange:
            found.append(f"errors of other families: {strange}")
        if self.counted["calls"] != self.requests:
            found.append(f"{self.requests} requests, and {self.counted['calls']} counted")
        if (self.counted["prompt"], self.counted["completion"]) != self.billed:
            found.append(f"billed {self.billed}, and counted {self.counted}")
        if self.unreported < self.untold:
            found.append(f"{self.untold} bills were not told, {self.unreported} are unreported")
        if self.left_open:
            found.append(f"left open: {self.left_open}")
        return found


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(calls: int, *, concurrency: int = 64, faults: float = 0.05, seed: int = 0) -> Soak:
    """Make the calls, half of them as streams.

    Args:
        calls: How many.
        concurrency: How many at the same time.
        faults: The share of requests that meet a fault.
        seed: Of the choice of faults.

    Returns:
        What was seen.
    """
    from langchain_openai import ChatOpenAI

    draw, seen, tracker = random.Random(seed), Soak(calls=calls), CostTracker()
    student = HuggingFaceStudent(model=str(STUDENT), max_tokens=12)
    todo, every = iter(range(calls)), max(1, calls // 40)
    with BillingServer() as server:
        for _ in range(calls):
            is_fault = draw.random() < faults
            server.plans.append(draw.choice(FAULTS) if is_fault else Plan())
        chain = GuidedKnowledgeTransferChain(
            teacher=ChatOpenAI(
                model="big-1",
                base_url=server.base_url,
                api_key="local",
                max_retries=0,
                stream_usage=True,
            ),
            student=student,
            guidance_tokens=6,
            callbacks=[tracker],
        )

        async def ask(number: int) -> None:
            question = f"What is {number % 89} plus 4?"
            try:
                if number % 2:
                    text = "".join([str(c.text) async for c in chain.astream(question)])
                else:
                    text = str((await chain.ainvoke(question)).text)
                seen.outcomes["answer" if text else "strange: empty"] += 1
            except GKTError as error:
                seen.outcomes[f"{type(error).__name__} {error.status or ''}".strip()] += 1
            except Exception as error:  # noqa: BLE001  which is what is counted
                seen.outcomes[f"strange: {type(error).__name__}"] += 1

        async def work() -> None:
            for number in todo:
                await ask(number)
                if number % every == 0:
                    gc.collect()
                    seen.memory.append(_resident())

        gc.collect()
        gc.freeze()  # what was there before is not looked through again each time
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(concurrency)))
        seen.seconds = time.perf_counter() - began
        gc.unfreeze()
        server.settle()
        prompt, _, completion, _ = server.sums(told=True)
        seen.billed = (prompt, completion)
        seen.untold = sum(not entry.told for entry in server.ledger)
        seen.requests = len(server.requests)
    teacher = tracker.report().to_dict()["teacher"]
    seen.counted = {
        "calls": teacher["calls"],
        "prompt": teacher["prompt_tokens"],
        "completion": teacher["completion_tokens"],
    }
    seen.unreported = teacher["unreported"]["calls"]
    seen.left_open = {name: len(held) for name, held in left_open(tracker).items()}
    student.close()
    return seen


def main() -> None:
    """Make the calls and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--faults", type=float, default=0.05)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # each fault is said. Here they are counted
    logging.disable()
    seen = asyncio.run(soak(given.calls, concurrency=given.concurrency, faults=given.faults))
    shown = {
        "calls": seen.calls,
        "outcomes": dict(seen.outcomes),
        "counted": seen.counted,
        "billed": seen.billed,
        "unreported": seen.unreported,
        "bills not told": seen.untold,
        "left open": seen.left_open,
        "memory, last half to first": round(seen.growth, 4),
        "resident MiB": [round(seen.memory[0]), round(max(seen.memory)), round(seen.memory[-1])],
        "seconds": round(seen.seconds, 1),
    }
    print(json.dumps(shown, indent=1))
    if problems := seen.problems():
        raise SystemExit("; ".join(problems))


if __name__ == "__main__":
    main()
