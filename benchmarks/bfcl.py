"""Tool calls of a student on the Berkeley leaderboard's rows, alone and by agreement.

``python -m benchmarks.bfcl write --student FOLDER --out answers.jsonl simple_python:0-100 ...``
``python -m benchmarks.bfcl table answers.jsonl --student qwen15 [--teacher qwen05]``

Rows and checker are those of the package bfcl-eval. Install it without its dependencies, best in an
environment of its own (``pip install --no-deps bfcl-eval``), and name that environment's
``site-packages`` with ``--package``. ``write`` goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from benchmarks.real_page import table
from langchain_gkt import HuggingFaceStudent
from langchain_gkt.evaluation.results.statistics import wilson
from langchain_gkt.students.call_voting import vote_on_calls
from langchain_gkt.texts.tool_text import written_calls

SAMPLES, TEMPERATURE, MAX_TOKENS = 5, 0.7, 128
_TYPES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "long": "integer",
    "bool": "boolean",
    "tuple": "array",
    "list": "array",
    "any": "string",
}


def rows_of(package: Path, category: str) -> list[dict[str, Any]]:
    """Read the rows of a category, with their right answers where it has some."""
    data = package / "bfcl_eval" / "data"
    name = f"BFCL_v4_{category}.json"
    rows = [json.loads(line) for line in (data / name).read_text().splitlines()]
    if (answers := data / "possible_answer" / name).exists():
        known = {one["id"]: one for one in map(json.loads, answers.read_text().splitlines())}
        for row in rows:
            row["ground_truth"] = known[row["id"]]["ground_truth"]
    return rows


def prompt_of(row: dict[str, Any]) -> tuple[list[BaseMessage], list[dict[str, Any]]]:
    """Return a row's conversation, and its functions as tools in OpenAI's form."""
    kinds = {"user": HumanMessage, "system": SystemMessage}
    messages = [kinds[one["role"]](one["content"]) for one in row["question"][0]]
    tools = [
        {
            "type": "function",
            "function": {
                **function,
                "name": function["name"].replace(".", "_"),
                "parameters": _json_schema(function["parameters"]),
            },
        }
        for function in row["function"]
    ]
    return messages, tools


def _json_schema(schema: Any) -> Any:
    """Rename the leaderboard's types to those of JSON schemas."""
    if isinstance(schema, list):
        return [_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _TYPES.get(value, value)
        if key == "type" and isinstance(value, str)
        else _json_schema(value)
        for key, value in schema.items()
    }


def write(args: argparse.Namespace) -> None:
    """Have a student answer rows once greedily and several times at a temperature."""
    name = Path(args.student).name
    done = {(one["category"], one["row"]) for one in _lines(args.out) if one["student"] == name}
    student = HuggingFaceStudent(model=args.student, max_tokens=MAX_TOKENS)
    for category, row_number in _asked(args.stages):
        rows = rows_of(args.package, category)
        if row_number >= len(rows) or (category, row_number) in done:
            continue
        messages, tools = prompt_of(rows[row_number])
        greedy = student.invoke(messages, tools=tools, temperature=0.0)
        sampled = student.sample(messages, SAMPLES, tools=tools, temperature=TEMPERATURE)
        with args.out.open("a") as file:
            file.write(
                "".join(
                    json.dumps(_line(reply, category, row_number, name, number)) + "\n"
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
    return {
        "category": category,
        "row": row,
        "student": student,
        "kind": "sample" if number else "greedy",
        "sample": max(0, number - 1),
        "text": str(reply.text),
        "calls": [{"name": one["name"], "args": one["args"]} for one in reply.tool_calls],
        "finish_reason": reply.response_metadata["finish_reason"],
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# --- the table ---


class Checker:
    """The leaderboard's own judgement of calls."""

    def __init__(self, package: Path) -> None:
        """Import it without the clients of the providers that it lists."""
        if str(package) not in sys.path:
            sys.path.append(str(package))
        models: Any = ModuleType("bfcl_eval.constants.model_config")
        # The names of functions have underscores in the place of dots, as for OpenAI.
        models.MODEL_CONFIG_MAPPING = {"student": SimpleNamespace(underscore_to_dot=True)}
        sys.modules["bfcl_eval.constants.model_config"] = models
        from bfcl_eval.constants.enums import Language
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

        self._check, self._language = ast_checker, Language.PYTHON

    def is_right(self, row: dict[str, Any], category: str, calls: Any) -> bool:
        """Judge calls; of a row that no function fits, none is right.

        Args:
            row: The row.
            category: Its category.
            calls: Dicts with ``name`` and ``arguments``. None for what cannot be read.
        """
        if "irrelevance" in category:
            return calls == []
        if not calls:
            return False
        given = [{call["name"]: call["arguments"]} for call in calls]
        truth = row["ground_truth"]
        try:
            judged = self._check(row["function"], given, truth, self._language, category, "student")
        except (AttributeError, KeyError, TypeError):  # it trips over values of odd types
            return False
        return bool(judged["valid"])


def judged(args: argparse.Namespace, student: str) -> dict[str, dict[int, dict[str, Any]]]:
    """Judge all rows that a student has answered, by category and row."""
    checker = Checker(args.package)
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for line in _lines(args.answers):
        if line["student"] == student:
            found[line["category"], line["row"]].append(line)
    result: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    rows = {category: rows_of(args.package, category) for category, _ in found}
    for (category, number), lines in found.items():
        row = rows[category][number]
        _, tools = prompt_of(row)
        greedy = next(line for line in lines if line["kind"] == "greedy")
        replies = [_reply(line) for line in lines if line["kind"] == "sample"]
        vote = vote_on_calls(replies, tools)
        result[category][number] = {
            "alone": checker.is_right(row, category, _calls(greedy)),
            "agree": round(vote.agreement * len(replies)),
            "voted": checker.is_right(row, category, vote.calls),
            "calls": bool(vote.calls),
            "confidence": _confidence(greedy),
        }
    return result


def _calls(line: dict[str, Any]) -> list[dict[str, Any]] | None:
    if calls := line.get("calls"):
        return [{"name": call["name"], "arguments": call["args"]} for call in calls]
    return written_calls(line["text"])


def _reply(line: dict[str, Any]) -> AIMessage:
    calls = [{**call, "id": "x"} for call in line.get("calls") or []]
    metadata = {"finish_reason": line["finish_reason"]}
    return AIMessage(line["text"], tool_calls=calls, response_metadata=metadata)


def _confidence(line: dict[str, Any]) -> float | None:
    known = line.get("logprobs")
    return float(np.exp(np.mean(known))) if known else None


def frontier(
    rows: list[dict[str, Any]], teacher: list[bool], least: int
) -> tuple[float, float, float, float | None, int]:
    """Say what a threshold of agreement brings, against other ways to spend as much.

    Args:
        rows: What `judged` found of a category.
        teacher: Whether the teacher is right, row by row.
        least: How many samples must agree.

    Returns:
        The share left to the teacher; the share of right turns by agreement, by lots, and by the
        confidence of the greedy answer (None if it is not known). Wrong turns of the student.
    """
    left = np.array([row["agree"] < least for row in rows])
    right = np.array(teacher)
    own = np.array([row["voted"] for row in rows])
    alone = np.array([row["alone"] for row in rows])
    share = float(left.mean())
    by_lots = share * right.mean() + (1 - share) * alone.mean()
    by_confidence = None
    if all(row["confidence"] is not None for row in rows):
        order = np.argsort([row["confidence"] for row in rows], kind="stable")
        asked = np.zeros(len(rows), bool)
        asked[order[: int(left.sum())]] = True
        by_confidence = float(np.where(asked, right, alone).mean())
    by_agreement = float(np.where(left, right, own).mean())
    return share, by_agreement, float(by_lots), by_confidence, int((~left & ~own).sum())


def show(args: argparse.Namespace) -> None:
    """Print a table for each category, and draw one picture of all if it is asked for."""
    student = judged(args, args.student)
    taught = judged(args, args.teacher) if args.teacher else {}
    curves: dict[str, list[Any]] = {}
    for category, found in student.items():
        numbers = [n for n in sorted(found) if not args.teacher or n in taught[category]]
        rows = [found[number] for number in numbers]
        teacher = [taught[category][n]["alone"] if args.teacher else True for n in numbers]
        if not rows:
            continue
        alone = sum(row["alone"] for row in rows)
        low, high = wilson(alone, len(rows))
        sys.stdout.write(
            f"\n{category}: {len(rows)} rows, student alone {alone / len(rows):.1%} "
            f"({low:.0%} to {high:.0%}), teacher {np.mean(teacher):.1%}\n\n"
        )
        curves[category] = [frontier(rows, teacher, least) for least in range(1, SAMPLES + 2)]
        lines = [
            [
                f"{least} of {SAMPLES}" if least <= SAMPLES else "never: the teacher",
                f"{share:.1%}",
                f"{agreed:.1%}",
                f"{lots:.1%}",
                "unknown" if sure is None else f"{sure:.1%}",
                str(wrong),
            ]
            for least, (share, agreed, lots, sure, wrong) in enumerate(curves[category], 1)
        ]
        heads = ["at least", "left to the teacher", "right", "by lots", "by confidence", "wrong"]
        sys.stdout.write("\n".join(table(heads, lines)) + "\n")
    if args.picture:
        _draw(curves, args.picture)


def _draw(curves: dict[str, list[Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 3.6), layout="constrained")
    for place, (category, points) in zip(
        np.atleast_1d(figure.subplots(1, len(curves), sharey=True)), curves.items(), strict=True
    ):
        shares = [100 * point[0] for point in points]
        for index, name in ((1, "agreement"), (3, "confidence"), (2, "lots")):
            if points[0][index] is not None:
                values = [100 * point[index] for point in points]
                place.plot(shares, values, marker="o", label=name, ls=":" if index == 2 else "-")
        place.set(title=category, xlabel="turns left to the teacher, %")
    figure.axes[0].set_ylabel("right turns, %")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Read the command line and do what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="site-packages with bfcl_eval")
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="have a student answer rows")
    writing.add_argument("--student", required=True, help="folder or hub id")
    writing.add_argument("--out", type=Path, required=True, help="JSON lines; they are added to")
    writing.add_argument("stages", nargs="+", metavar="CATEGORY:FIRST-LAST")
    showing = commands.add_parser("table", help="judge what was written")
    showing.add_argument("answers", type=Path)
    showing.add_argument("--student", required=True, help="whose answers")
    showing.add_argument("--teacher", help="whose greedy answers stand in; a perfect one if not")
    showing.add_argument("--picture", type=Path)
    args = parser.parse_args()
    write(args) if args.command == "write" else show(args)


if __name__ == "__main__":
    main()
