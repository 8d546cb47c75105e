"""Accuracy of one student on each engine: ``python -m benchmarks.real_accuracy --gsm8k FILE ...``.

Engines round differently, and their files have weights of different types. This says whether the
faster one answers worse. Every engine has a process of its own and keeps its answers, so an ended
run goes on with the next engine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.real_page import table, write
from langchain_gkt import HuggingFaceStudent
from langchain_gkt.evaluation import load_task
from langchain_gkt.evaluation.results.statistics import wilson


def answer(args: argparse.Namespace) -> dict[str, Any]:
    """Let one engine answer all questions, greedily.

    Args:
        args: The command line. ``worker`` holds the model's place and its dtype.

    Returns:
        The engine's description, texts, verdicts, tokens and processor seconds.
    """
    place, dtype = args.worker
    task = load_task("gsm8k", data=str(args.gsm8k), rows=args.rows, shots=args.shots)
    student = HuggingFaceStudent(
        model=place,
        dtype=dtype,
        temperature=0,
        max_tokens=task.max_tokens,
        stop=list(task.stop),
        threads=args.threads,
    )
    engine = student.backend_reason.partition(": ")[0]
    cpu = time.process_time()
    answers = student.batch([task.prompt(row) for row in task.rows])
    spent = time.process_time() - cpu
    texts = [one.text for one in answers]
    student.close()
    return {
        "engine": engine,
        "cpu_s": spent,
        "tokens": sum(one.usage_metadata["output_tokens"] for one in answers),
        "right": [
            bool(task.judge(text, row)["answer"])
            for text, row in zip(texts, task.rows, strict=True)
        ],
        "texts": texts,
    }


def render(results: dict[str, Any]) -> str:
    """Return the table.

    Args:
        results: What the JSON of a run holds.
    """
    engines = results["engines"]
    first = next(iter(engines.values()))
    rows = []
    for name, one in engines.items():
        right, count = sum(one["right"]), len(one["right"])
        low, high = wilson(right, count)
        pairs = list(zip(first["right"], one["right"], strict=True))
        rows.append(
            [
                name,
                one["engine"],
                f"{right / count:.0%} ({100 * low:.0f}-{100 * high:.0f})",
                f"{sum(a and not b for a, b in pairs)} / {sum(b and not a for a, b in pairs)}",
                str(sum(a == b for a, b in zip(first["texts"], one["texts"], strict=True))),
                f"{one['tokens'] / count:.0f}",
                f"{one['tokens'] / one['cpu_s']:.1f}",
            ]
        )
    shots = results["shots"]
    told = f"{len(first['right'])} rows of GSM8K" + ("" if shots is None else f", {shots} examples")
    title = f"{results['model']}, {results['date']}, {told}, greedy, sixteen rows at once:"
    head = ["weights", "engine", "accuracy (95%)", "lost / won", "same text", "tokens"]
    note = "*Lost*, *won* and *same text* compare with the first line."
    lines = table([*head, "tokens per processor second"], rows)
    return "\n".join([title, "", *lines, "", note])


def main() -> None:
    """Read the command line, run every engine, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.real_accuracy", description=__doc__)
    parser.add_argument("--gsm8k", type=Path, help="the questions, as their publisher has them")
    parser.add_argument("--folder", help="Hugging Face folder")
    parser.add_argument("--gguf", help="GGUF file")
    parser.add_argument("--openvino", help="folder that was exported for OpenVINO")
    parser.add_argument("--ways", nargs="+", help="run only these lines of the table now")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--shots", type=int, help="worked examples; default: the task's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/real_accuracy.json"))
    parser.add_argument("--page", type=Path, help="page whose table to write, between its marks")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        json.dump(answer(args), sys.stdout)
        return
    ways = {
        "folder, as saved": (args.folder, "auto"),
        "folder, int8": (args.folder, "int8"),
        "GGUF": (args.gguf, "auto"),
        "OpenVINO folder": (args.openvino, "auto"),
    }
    if unknown := {*(args.ways or ())} - ways.keys():
        parser.error(
            f"--ways: {', '.join(sorted(unknown))}: choose from {', '.join(map(repr, ways))}"
        )
    if args.out.exists():
        results = json.loads(args.out.read_text())
    else:
        if not any(place for place, _ in ways.values()) or args.gsm8k is None:
            parser.error("give --gsm8k, and --folder, --gguf, --openvino or several of them")
        model = Path(next(place for place, _ in ways.values() if place)).stem
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        results = {"model": model, "date": today, "shots": args.shots, "engines": {}}
    for name, way in ways.items():
        wanted = way[0] and (not args.ways or name in args.ways)
        if wanted and name not in results["engines"]:
            command = [sys.executable, "-m", "benchmarks.real_accuracy", *sys.argv[1:]]
            done = subprocess.run([*command, "--worker", *way], stdout=subprocess.PIPE, check=True)
            results["engines"][name] = json.loads(done.stdout)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1))
    found = results["engines"]
    results["engines"] = {name: found[name] for name in ways if name in found}
    text = render(results)
    print(text)  # noqa: T201
    if args.page:
        write(args.page, f"{results['model']} gsm8k", text)


if __name__ == "__main__":
    main()
