"""Measure what several samples of an answer cost against one: ``python -m benchmarks.samples``.

Each engine answers a question once, and then the same number of tokens several times side by side,
in turns. Prompts begin with the same worked examples, which the engine has read before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from benchmarks.real import make_prompts
from benchmarks.real_page import table
from benchmarks.real_ways import Stopwatch
from langchain_gkt import HuggingFaceStudent


def measure(
    student: HuggingFaceStudent, args: argparse.Namespace, server: int | None
) -> list[tuple[list[float], list[float], int, int]]:
    """Answer each question once and several times.

    Args:
        student: The student.
        args: The command line.
        server: The process of the student's server, whose processor seconds count. None if the
            model is in this process.

    Returns:
        For each question: seconds of the processor and of the clock for one answer, the same for
        several, and the tokens that each wrote.
    """
    [examples] = make_prompts(1, args.few_shot)

    def question(number: int) -> list[BaseMessage]:
        # A long text: all answers fill their limit. None finds its own question in a cache.
        last = f"Write the numbers from {number} to {number + 300} in words, one in each line."
        return [HumanMessage(f"{examples}\n\n{last}")]

    student.sample(question(0), args.samples, max_tokens=4)
    found = []
    for number in range(args.repeats):
        seconds: dict[int, list[float]] = {}
        written: dict[int, int] = {}
        turns = (1, args.samples) if number % 2 else (args.samples, 1)
        for samples in turns:
            fresh = question(10 * number + samples)
            watch = Stopwatch(server)
            answers = student.sample(fresh, samples, temperature=0.7, max_tokens=args.tokens)
            seconds[samples] = list(watch.read())
            usages = [answer.usage_metadata for answer in answers]
            written[samples] = sum(usage["output_tokens"] for usage in usages if usage)
        found.append((seconds[1], seconds[args.samples], written[1], written[args.samples]))
    return found


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.samples", description=__doc__)
    parser.add_argument("--folder", required=True, help="Hugging Face folder or hub id")
    parser.add_argument("--openvino", help="folder that was exported for OpenVINO")
    parser.add_argument("--vllm", help="address of a vLLM with the model of --folder, without /v1")
    parser.add_argument("--vllm-pid", type=int, help="its process, whose processor seconds count")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--few-shot", type=int, default=900, help="tokens of worked examples")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch = {"model": args.folder, "threads": args.threads}
    ways: dict[str, tuple[dict[str, Any], int | None]] = {
        "torch": (torch, None),
        "torch, int8": ({**torch, "dtype": "int8"}, None),
    }
    if args.openvino:
        ways["OpenVINO"] = ({**torch, "model": args.openvino, "backend": "openvino"}, None)
    if args.vllm:
        server = {"model": args.folder, "backend": "vllm", "base_url": f"{args.vllm}/v1"}
        ways["vLLM"] = (server, args.vllm_pid)
    lines = []
    for name, (fields, pid) in ways.items():
        student = HuggingFaceStudent(**fields)
        found = measure(student, args, pid)
        student.close()
        times = [[several[k] / one[k] for one, several, *_ in found] for k in (0, 1)]
        lines.append(
            [
                name,
                *(f"{median(row[0][k] for row in found):.2f} s" for k in (0, 1)),
                *(f"{median(t):.2f}x ({min(t):.2f}-{max(t):.2f})" for t in times),
                f"{sum(row[2] for row in found)} / {sum(row[3] for row in found)}",
            ]
        )
    several = f"{args.samples} samples"
    head = ["engine", "one: processor", "one: clock", f"{several}: processor", f"{several}: clock"]
    print(f"{Path(args.folder).name}, at most {args.tokens} tokens, {args.repeats} questions")  # noqa: T201
    print("\n".join(table([*head, "tokens"], lines)))  # noqa: T201


if __name__ == "__main__":
    main()
