"""Compare engines on a real model: ``make bench-real``, ours beside the bare ones.

Every way has a process of its own that lives through the whole run, and short slices of work go
round between them: what else the machine does then falls on all of them alike. Figures are
processor seconds of a process, and seconds on the clock beside them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.real_page import render, write
from langchain_gkt.evaluation.tasks.word_problems import sample

USERS = (1, 8, 16)
FEWEST_ANSWERS = 16
"""One answer takes a second or so, in which the machine may do other things."""
_WORDS_PER_TOKEN = 0.7  # of English, about


def make_prompts(count: int, few_shot_tokens: int) -> list[str]:
    """Return questions that begin with the same worked examples.

    Args:
        count: How many.
        few_shot_tokens: About how many tokens the examples take.
    """
    shots: list[str] = []
    for problem in sample(1, 100):
        if len(" ".join(shots).split()) >= few_shot_tokens * _WORDS_PER_TOKEN:
            break
        shots.append(f"Q: {problem.question}\nA: {problem.solution}\n")
    asked = sample(2, count)
    return ["\n".join([*shots, f"Q: {problem.question}\nA:"]) for problem in asked]


def _work(way_name: str, model: str, threads: int) -> None:
    """Load a way, then serve orders from the standard input, one JSON line each."""
    from benchmarks.baselines import resident_bytes
    from benchmarks.real_ways import ENTRIES, Stopwatch, engine_steps, processes

    before, watch = resident_bytes(), Stopwatch()
    way = ENTRIES[way_name].load(model, threads)
    load_cpu, load_wall = watch.read()
    loaded = {"load_cpu_s": load_cpu, "load_wall_s": load_wall}
    print(json.dumps(loaded), flush=True)  # noqa: T201  the answer to whoever started us
    for line in sys.stdin:
        order = json.loads(line)
        if "first" in order:
            cpu, wall = way.first_token(order["first"])
            reply = {"cpu_s": cpu, "wall_s": wall}
        else:
            steps = engine_steps(model) if way.server else 0
            watch = Stopwatch(way.server)
            written = way.answer(order["prompts"], order["tokens"])
            cpu, wall = watch.read()
            memory = resident_bytes() - before
            memory += sum(process.memory_info().rss for process in processes(way.server))
            reply = {"tokens": written, "cpu_s": cpu, "wall_s": wall, "mib": memory / 2**20}
            if way.server:
                reply["steps"] = engine_steps(model) - steps
        print(json.dumps(reply), flush=True)  # noqa: T201


class Worker:
    """The process of one way."""

    def __init__(self, name: str, model: str, threads: int) -> None:
        """Start it, and wait until the model is loaded."""
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.real", "--worker", name, model]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.loaded = self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                reply: dict[str, float] = json.loads(line)
                return reply
        raise RuntimeError("a worker has ended; its message is above")

    def ask(self, **order: Any) -> dict[str, float]:
        """Give an order, and return the reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def bandwidth() -> float:
    """Return how many bytes a second one thread reads from memory."""
    import torch

    torch.set_num_threads(1)
    memory, best = torch.ones(2**26), 0.0  # 256 MiB, more than a cache holds
    for _ in range(5):
        start = time.process_time()
        memory.sum()
        best = max(best, memory.nbytes / (time.process_time() - start))
    return best


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Run all ways in turns; return what the JSON holds."""
    from benchmarks.real_ways import ENTRIES, server_place

    places = {"folder": args.folder, "gguf": args.gguf, "openvino": args.openvino}
    places["server"] = args.vllm and server_place(args.folder, args.vllm, args.vllm_pid)
    names = [
        name
        for name, entry in ENTRIES.items()
        if places[entry.runs] and entry.installed and (not args.ways or name in args.ways)
    ]

    most = {name: int(users) for name, _, users in (one.rpartition("=") for one in args.most_users)}

    def asked_with(users: int) -> list[str]:
        return [name for name in names if users <= most.get(name, users)]

    names = asked_with(min(args.users))
    workers: dict[str, Worker] = {}
    found: dict[str, Any] = {name: {"users": {}, "first": []} for name in names}
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": _processor(),
        "settings": {
            "model": Path(next(place for place in places.values() if place)).name,
            **{k: getattr(args, k) for k in ("tokens", "few_shot", "repeats", "threads")},
        },
        "bandwidth_gb_s": bandwidth() / 1e9,
        "weight_bytes": {kind: _weight_bytes(place) for kind, place in places.items()},
        "ways": found,
    }
    try:
        for name in names:
            workers[name] = Worker(name, places[ENTRIES[name].runs], args.threads)
            found[name]["loaded"] = workers[name].loaded
        prompts = make_prompts(64, args.few_shot)  # no more users than these
        turns = random.Random(1)
        known = 0
        for users in args.users:
            asked_now = asked_with(users)
            # The examples become known; llama.cpp has a prompt cache in each slot.
            for name in asked_now if users > known else []:
                workers[name].ask(prompts=prompts[:users], tokens=4)
            known = max(known, users)
            slices: dict[str, list[dict[str, float]]] = {name: [] for name in asked_now}
            for _ in range(max(args.repeats, FEWEST_ANSWERS // users)):
                asked = turns.sample(prompts, users)
                for name in turns.sample(asked_now, len(asked_now)):
                    slices[name].append(workers[name].ask(prompts=asked, tokens=args.tokens))
            for name in asked_now:
                found[name]["users"][users] = slices[name]
            if users == args.users[0]:
                for prompt in make_prompts(64 + args.repeats, args.few_shot)[64:]:
                    for name in turns.sample(names, len(names)):
                        found[name]["first"].append(workers[name].ask(first=prompt))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=2))  # an ended run keeps what it has
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _weight_bytes(place: str | None) -> int:
    """Return the size of the weights' files; 0 if they are not in a local place."""
    path = Path(place or "")
    if path.suffix == ".gguf" and path.is_file():
        return path.stat().st_size
    if not place:
        return 0
    kinds = ("*.safetensors", "openvino_model.bin")
    return sum(file.stat().st_size for kind in kinds for file in path.glob(kind))


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.real", description=__doc__)
    parser.add_argument("--folder", help="Hugging Face folder or hub id")
    parser.add_argument("--gguf", help="GGUF file, or owner/repo:file.gguf")
    parser.add_argument("--openvino", help="folder that was exported for OpenVINO")
    parser.add_argument("--vllm", help="address of a vLLM with the model of --folder, without /v1")
    parser.add_argument("--vllm-pid", type=int, help="its process, whose processor seconds count")
    parser.add_argument("--ways", nargs="+", help="only these entries of the table")
    parser.add_argument("--users", type=int, nargs="+", default=list(USERS))
    parser.add_argument(
        "--most-users",
        nargs="+",
        default=[],
        metavar="WAY=USERS",
        help="generate=1 leaves out its runs with more users, which take minutes",
    )
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of an answer")
    parser.add_argument("--few-shot", type=int, default=900, help="tokens of worked examples")
    parser.add_argument(
        "--repeats", type=int, default=5, help=f"at least, and {FEWEST_ANSWERS} answers"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_real.json"))
    parser.add_argument("--page", type=Path, help="page whose tables to write, between its marks")
    parser.add_argument("--again", action="store_true", help="measure nothing, read --out")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(*args.worker, args.threads)
        return
    if args.again:
        results = json.loads(args.out.read_text())
    elif args.vllm and not (args.folder and args.vllm_pid):
        parser.error("--vllm needs --folder (the tokenizer) and --vllm-pid")
    elif args.folder or args.gguf or args.openvino:
        results = json.loads(json.dumps(compare(args)))
    else:
        parser.error("give --folder, --gguf, --openvino, or several of them, of one model")
    text = render(results)
    print(text)  # noqa: T201
    if args.page:
        model = results["settings"]["model"]
        write(args.page, f"{model} vllm" if "vllm" in results["ways"] else model, text)


if __name__ == "__main__":
    main()
