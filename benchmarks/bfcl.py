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
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from benchmarks.agents import PRICE
from benchmarks.agents_page import RESULTS, write_page
from langchain_gkt import HuggingFaceStudent
from langchain_gkt.students.call_voting import vote_on_calls
from langchain_gkt.texts.tool_text import written_calls

SAMPLES, TEMPERATURE, MAX_TOKENS = 5, 0.7, 128
PERFECT = "perfect"
"""The name of a teacher that is always right. What the student wrote stands for its tokens."""
_PUBLISHED = {
    "simple": "simple_python",
    "multiple_function": "multiple",
    "relevance": "irrelevance",
}
"""How earlier versions of the leaderboard name categories."""
_ORDER = ("simple_python", "multiple", "live_simple", "irrelevance")
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


@cache
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
    written = _lines(args.answers)
    done = {(one["category"], one["row"]) for one in written if one["student"] == name}
    student = HuggingFaceStudent(model=args.student, max_tokens=MAX_TOKENS)
    for category, row_number in _asked(args.stages):
        rows = rows_of(args.package, category)
        if row_number >= len(rows) or (category, row_number) in done:
            continue
        messages, tools = prompt_of(rows[row_number])
        greedy = student.invoke(messages, tools=tools, temperature=0.0)
        sampled = student.sample(messages, SAMPLES, tools=tools, temperature=TEMPERATURE)
        with args.answers.open("a") as file:
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


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def published(
    files: Sequence[Path], checker: Checker, package: Path
) -> dict[str, dict[int, dict[str, Any]]]:
    """Judge what the leaderboard has published of a model, as `judged` judges a student.

    Args:
        files: Result files of a model with function calling.
        checker: The leaderboard's judgement.
        package: Where the leaderboard's package is.

    Returns:
        By category and row, whether it is ``alone`` right, and its ``price``. A row whose functions
        have changed since then is left out.
    """
    result: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in (line for file in files for line in _lines(file)):
        name, _, number = line["id"].rpartition("_")
        category, index = _PUBLISHED.get(name, name), int(number.split("-")[0])
        row = rows_of(package, category)[index]
        calls = _published_calls(line["result"])
        known = {function["name"].replace(".", "_") for function in row["function"]}
        if calls and not known.issuperset(call["name"] for call in calls):
            continue
        price = PRICE.input_mtok * line["input_token_count"]
        price += PRICE.output_mtok * line["output_token_count"]
        right = checker.is_right(row, category, calls)
        result[category][index] = {"alone": right, "price": float(price)}
    return result


def _published_calls(result: Any) -> list[dict[str, Any]] | None:
    """Return the calls of a published turn, none for text and None for what cannot be read."""
    if isinstance(result, str):
        return []
    calls = [(name, arguments) for call in result for name, arguments in call.items()]
    try:
        return [{"name": name, "arguments": json.loads(text)} for name, text in calls]
    except ValueError:
        return None


# --- the judgement ---


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


def judged(
    lines: Sequence[dict[str, Any]], student: str, package: Path
) -> dict[str, dict[int, dict[str, Any]]]:
    """Judge all rows that a student has answered.

    Args:
        lines: What `write` wrote.
        student: Whose answers.
        package: Where the leaderboard's package is.

    Returns:
        By category and row, what the student does alone and by vote, and what that costs.
    """
    checker = Checker(package)
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["student"] == student:
            found[line["category"], line["row"]].append(line)
    result: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    rows = {category: rows_of(package, category) for category, _ in found}
    for (category, number), of_row in found.items():
        row = rows[category][number]
        _, tools = prompt_of(row)
        greedy = next(line for line in of_row if line["kind"] == "greedy")
        replies = [_reply(line) for line in of_row if line["kind"] == "sample"]
        vote = vote_on_calls(replies, tools)
        price = PRICE.input_mtok * greedy["prompt_tokens"]
        price += PRICE.output_mtok * greedy["completion_tokens"]
        result[category][number] = {
            "alone": checker.is_right(row, category, _calls(greedy)),
            "agree": round(vote.agreement * len(replies)),
            "voted": checker.is_right(row, category, vote.calls),
            "valid": _valid(vote.calls or [], tools),
            "confidence": _confidence(greedy),
            "price": float(price),
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


def _valid(calls: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> bool:
    """Check calls by another library than the package does."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    return all(
        call["name"] in schemas
        and Draft202012Validator(schemas[call["name"]]).is_valid(call["arguments"])
        for call in calls
    )


def _confidence(line: dict[str, Any]) -> float | None:
    known = line.get("logprobs")
    return float(np.exp(np.mean(known))) if known else None


def figures(rows: Sequence[dict[str, Any]], teacher: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say what thresholds of agreement bring, against other ways to ask as often.

    Args:
        rows: What `judged` found of a category.
        teacher: The same of the teacher, row by row.

    Returns:
        Plain values. A point for each threshold: the share of turns ``left`` to the teacher and
        of its ``bill``, how many turns are ``right`` then and by other ways, and how many wrong
        ones are the student's.
    """
    alone, voted, agree = (
        np.array([row[name] for row in rows]) for name in ("alone", "voted", "agree")
    )
    right = np.array([row["alone"] for row in teacher])
    price = np.array([row["price"] for row in teacher])
    sure = [row["confidence"] for row in rows]
    student = max(alone.mean(), voted.mean())
    points = []
    for least in range(1, SAMPLES + 1):
        left = agree < least
        count = int(left.sum())
        by_confidence = None
        if None not in sure:
            asked = np.zeros(len(rows), bool)
            asked[np.argsort(sure, kind="stable")[:count]] = True
            by_confidence = float(np.where(asked, right, alone).mean())
        won = min(count, int((right & ~alone & ~voted).sum()))
        points.append(
            {
                "at_least": least,
                "left": float(left.mean()),
                "bill": float(price[left].sum() / price.sum()),
                "right": float(np.where(left, right, voted).mean()),
                "random": float(left.mean() * right.mean() + (1 - left.mean()) * student),
                "confidence": by_confidence,
                "oracle": float(((alone | voted).sum() + won) / len(rows)),
                "wrong": int((~left & ~voted).sum()),
            }
        )
    return {
        "rows": len(rows),
        "alone": float(alone.mean()),
        "voted": float(voted.mean()),
        "teacher": float(right.mean()),
        "invalid": sum(not row["valid"] for row in rows),
        "points": points,
    }


def condense(
    answers: Path,
    package: Path,
    teachers: Mapping[str, Sequence[Path]] = MappingProxyType({}),
    seen: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Judge what students have written.

    Args:
        answers: What `write` wrote. The first student in it is the teacher of the others, too.
        package: Where the leaderboard's package is.
        teachers: Published result files of each cloud model.
        seen: By category, how many of its first rows a threshold is chosen on.

    Returns:
        Plain values, which the page is written from.
    """
    lines = _lines(answers)
    students = list(dict.fromkeys(line["student"] for line in lines))
    of = {student: judged(lines, student, package) for student in students}
    checker = Checker(package)
    of |= {name: published(files, checker, package) for name, files in teachers.items()}
    pairs = [(student, teacher) for student in students for teacher in [*teachers, PERFECT]]
    pairs += [(student, students[0]) for student in students[1:]]
    found = []
    for student, teacher in pairs:
        categories = {}
        for category, rows in sorted(of[student].items(), key=lambda one: _ORDER.index(one[0])):
            known = of[student if teacher == PERFECT else teacher].get(category, {})
            if numbers := sorted(rows.keys() & known.keys()):
                taught = [known[number] for number in numbers]
                if teacher == PERFECT:
                    taught = [{**one, "alone": True} for one in taught]
                asked = [rows[number] for number in numbers]
                categories[category] = figures(asked, taught)
                first = sum(number < seen.get(category, 0) for number in numbers)
                if 0 < first < len(numbers):
                    for name, part in ("seen", slice(first)), ("unseen", slice(first, None)):
                        categories[category][name] = figures(asked[part], taught[part])
        found.append({"student": student, "teacher": teacher, "categories": categories})
    written = datetime.fromtimestamp(answers.stat().st_mtime, timezone.utc)
    return {
        "date": f"{written:%Y-%m-%d}",
        "engines": sorted({line.get("engine", "torch") for line in lines}),
        "samples": SAMPLES,
        "temperature": TEMPERATURE,
        "pairs": found,
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
