"""Tool calls of a student on the Berkeley leaderboard's rows, alone and by agreement.

    python -m benchmarks.bfcl --package DIR write answers.jsonl --student FOLDER simple_python:0-100
    python -m benchmarks.bfcl --package DIR judge answers.jsonl --teacher NAME RESULTS.json ...

Rows and checker are those of the package bfcl-eval. Install it without its dependencies, best in an
environment of its own (``pip install --no-deps bfcl-eval``), and name that environment's
``site-packages`` with ``--package``. ``write`` goes on where it was ended. ``judge`` keeps the
figures in benchmarks/results/bfcl.json, and writes docs/measurements/agents.md from them. Its
teachers are result files that the leaderboard has published (HuanzhiMao/BFCL-Result on GitHub).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage

from benchmarks.agents_page import RESULTS, write_page
from benchmarks.bfcl_judge import condense
from benchmarks.bfcl_rows import SAMPLES, TEMPERATURE, lines_of, prompt_of, rows_of
from langchain_gkt import HuggingFaceStudent
from langchain_gkt.gates.tool_fit import tool_fit, tool_fit_question

MAX_TOKENS = 128


def write(args: argparse.Namespace) -> None:
    """Have a student answer rows once greedily and several times at a temperature."""
    name = Path(args.student).name
    written = lines_of(args.answers)
    done = {(one["category"], one["row"]) for one in written if one["student"] == name}
    student = HuggingFaceStudent(model=args.student, max_tokens=MAX_TOKENS)
    for category, row_number in _asked(args.stages):
        rows = rows_of(args.package, category)
        if row_number >= len(rows) or (category, row_number) in done:
            continue
        messages, tools = prompt_of(rows[row_number])
        greedy = student.invoke(messages, tools=tools, temperature=0.0)
        sampled = student.sample(messages, SAMPLES, tools=tools, temperature=TEMPERATURE)
        question = tool_fit_question(messages, tools)
        fit = None if question is None else tool_fit(student.first_tokens(question))
        with args.answers.open("a") as file:
            file.write(
                "".join(
                    json.dumps(
                        {**_line(reply, category, row_number, name, number), "tool_fit": fit}
                    )
                    + "\n"
                    for number, reply in enumerate([greedy, *sampled])
                )
            )
    student.close()


def _asked(stages: list[str]) -> Iterator[tuple[str, int]]:
    for stage in stages:
        category, rows = stage.split(":")
        first, last = map(int, rows.split("-"))
        yield from ((category, row) for row in range(first, last))


def _line(reply: AIMessage, category: str, row: int, student: str, number: int) -> dict[str, Any]:
    usage: Any = reply.usage_metadata
    return {
        "category": category,
        "row": row,
        "student": student,
        "kind": "sample" if number else "greedy",
        "sample": max(0, number - 1),
        "text": str(reply.text),
        "calls": [{"name": one["name"], "args": one["args"]} for one in reply.tool_calls],
        "finish_reason": reply.response_metadata["finish_reason"],
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "engine": "torch",
    }


def main() -> None:
    """Read the command line and do what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help="site-packages with bfcl_eval")
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="have a student answer rows")
    judging = commands.add_parser("judge", help="judge what was written, and write the page")
    for command in (writing, judging):
        command.add_argument("answers", type=Path, help="JSON lines; `write` adds to them")
    judging.add_argument(
        "--teacher",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "RESULTS.json"),
        help="a cloud model, and what the leaderboard has published of it",
    )
    judging.add_argument(
        "--seen",
        nargs="+",
        default=[],
        metavar="CATEGORY:ROWS",
        help="choose the threshold on so many first rows, and report on the others",
    )
    writing.add_argument("--student", required=True, help="folder or hub id")
    writing.add_argument("stages", nargs="+", metavar="CATEGORY:FIRST-LAST")
    args = parser.parse_args()
    if args.command == "write":
        write(args)
        return
    teachers = {name: [*map(Path, files)] for name, *files in args.teacher}
    seen = {name: int(rows) for name, _, rows in (one.partition(":") for one in args.seen)}
    text = json.dumps(condense(args.answers, args.package, teachers, seen), indent=1)
    (RESULTS / "bfcl.json").write_text(f"{text}\n", encoding="utf-8")
    write_page()


if __name__ == "__main__":
    main()
