"""Judge tool calls as the Berkeley Function-Calling Leaderboard does, and condense the figures."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from langchain_core.messages import AIMessage

from benchmarks.agents import PRICE
from benchmarks.bfcl_rows import SAMPLES, TEMPERATURE, lines_of, prompt_of, rows_of
from langchain_gkt.students.call_voting import vote_on_calls
from langchain_gkt.texts.tool_text import written_calls

PERFECT = "perfect"
"""The name of a teacher that is always right. What the student wrote stands for its tokens."""
_PUBLISHED = {
    "simple": "simple_python",
    "multiple_function": "multiple",
    "relevance": "irrelevance",
}
"""How earlier versions of the leaderboard name categories."""
_ORDER = ("simple_python", "multiple", "live_simple", "irrelevance")


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
    for line in (line for file in files for line in lines_of(file)):
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
            "declined": checker.is_right(row, category, []),
            "fit": greedy.get("tool_fit"),
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


def safe_fit(seen: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the highest ``tool_fit_below`` that makes no turn text that needs a call.

    Args:
        seen: Rows that `judged` found, of all categories.

    Returns:
        The number, rounded down. None if no row that needs a call has a fit.
    """
    fits = [row["fit"] for row in seen if row["fit"] is not None and not row["declined"]]
    return math.floor(min(fits) * 1000) / 1000 if fits else None


def figures(
    rows: Sequence[dict[str, Any]],
    teacher: Sequence[dict[str, Any]],
    fit_below: float | None = None,
) -> dict[str, Any]:
    """Say what thresholds of agreement bring, against other ways to ask as often.

    Args:
        rows: What `judged` found of a category.
        teacher: The same of the teacher, row by row.
        fit_below: See `AgreementGate.tool_fit_below`. None to not ask for the fit.

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
    unfit = np.zeros(len(rows), bool)
    if fit_below is not None:
        unfit = np.array([row["fit"] is not None and row["fit"] < fit_below for row in rows])
    declined = np.array([bool(row.get("declined")) for row in rows])
    points = []
    for least in range(1, SAMPLES + 1):
        in_text = (agree < least) & unfit
        left = (agree < least) & ~unfit
        greedy, vote = (np.where(in_text, declined, one) for one in (alone, voted))
        student = max(greedy.mean(), vote.mean())
        count = int(left.sum())
        by_confidence = None
        if None not in sure:
            asked = np.zeros(len(rows), bool)
            asked[np.argsort(sure, kind="stable")[:count]] = True
            by_confidence = float(np.where(asked, right, greedy).mean())
        won = min(count, int((right & ~greedy & ~vote).sum()))
        points.append(
            {
                "at_least": least,
                "left": float(left.mean()),
                "bill": float(price[left].sum() / price.sum()),
                "right": float(np.where(left, right, vote).mean()),
                "random": float(left.mean() * right.mean() + (1 - left.mean()) * student),
                "confidence": by_confidence,
                "oracle": float(((greedy | vote).sum() + won) / len(rows)),
                "wrong": int((~left & ~vote).sum()),
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


def _parts(
    rows: Sequence[dict[str, Any]],
    teacher: Sequence[dict[str, Any]],
    first: int,
    fit_below: float | None,
) -> dict[str, Any]:
    """Return the figures of all rows, of the ``seen`` first ones, and of the ``unseen`` others."""
    found = figures(rows, teacher, fit_below)
    if 0 < first < len(rows):
        found["seen"] = figures(rows[:first], teacher[:first], fit_below)
        found["unseen"] = figures(rows[first:], teacher[first:], fit_below)
    return found


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
    lines = lines_of(answers)
    students = list(dict.fromkeys(line["student"] for line in lines))
    of = {student: judged(lines, student, package) for student in students}
    checker = Checker(package)
    of |= {name: published(files, checker, package) for name, files in teachers.items()}
    pairs = [(student, teacher) for student in students for teacher in [*teachers, PERFECT]]
    pairs += [(student, students[0]) for student in students[1:]]
    found = []
    for student, teacher in pairs:
        known = of[student if teacher == PERFECT else teacher]
        both: dict[str, Any] = {}
        for category, rows in sorted(of[student].items(), key=lambda one: _ORDER.index(one[0])):
            if numbers := sorted(rows.keys() & known.get(category, {}).keys()):
                taught = [known[category][number] for number in numbers]
                if teacher == PERFECT:
                    taught = [{**one, "alone": True} for one in taught]
                first = sum(number < seen.get(category, 0) for number in numbers)
                both[category] = [rows[number] for number in numbers], taught, first
        below = safe_fit(row for rows, _, first in both.values() for row in rows[:first])
        for fit_below in [None] if below is None else [None, below]:
            found.append(
                {
                    "student": student,
                    "teacher": teacher,
                    "tool_fit_below": fit_below,
                    "categories": {name: _parts(*one, fit_below) for name, one in both.items()},
                }
            )
    written = datetime.fromtimestamp(answers.stat().st_mtime, timezone.utc)
    return {
        "date": f"{written:%Y-%m-%d}",
        "engines": sorted({line.get("engine", "torch") for line in lines}),
        "samples": SAMPLES,
        "temperature": TEMPERATURE,
        "pairs": found,
    }
