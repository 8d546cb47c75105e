"""Writes what packing several questions into one call of the teacher does, position by position.

``python -m benchmarks.packing LINES`` reads measured lines: calls (``held`` to the JSON schema,
``free``, or for ``one`` question), a line for each question of a call, and the ``answer`` that the
student made of each beginning. It keeps their sums in ``benchmarks/packing.json``, and writes the
last section of ``docs/measurements/bulk.md`` from them. Without LINES it writes the section alone.
``--student NAME`` says that another student finished the same beginnings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.real_page import table
from langchain_gkt.evaluation.results.statistics import mcnemar, wilson

ROOT = Path(__file__).parents[1]
SUMS = ROOT / "benchmarks" / "packing.json"
PAGE = ROOT / "docs" / "measurements" / "bulk.md"
HEADING = "## Several questions in a call"
_KINDS = {"held": "with the JSON schema enforced", "free": "asked for JSON, nothing enforced"}


def sums_of(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum up what was measured.

    A question whose beginning is missing is asked alone, as a bulk job does it. Questions count
    whose answers are all there.
    """
    calls, right = list[dict[str, Any]](), dict[tuple[int, str], bool]()
    for line in lines:
        if line["kind"] == "answer":
            right[line["row"], line["begun"]] = line["right"]
        else:
            calls.append(line)
    alone = {line["row"]: line for line in calls if line["kind"] == "one"}
    alone = {row: line for row, line in alone.items() if (row, line["begun"]) in right}
    found: dict[str, Any] = {
        "one": {
            "questions": len(alone),
            "right": sum(right[row, line["begun"]] for row, line in alone.items()),
            "prompt_tokens": sum(line["prompt_tokens"] for line in alone.values()),
            "completion_tokens": sum(line["tokens"] for line in alone.values()),
            "leaks": sum(line.get("leaks", False) for line in alone.values()),
        },
        "student alone": sum(right.get((row, ""), False) for row in alone),
    }
    for kind in _KINDS:
        asked = [line for line in calls if line["kind"] == kind and line["row"] in alone]
        known = [one for one in asked if not one["begun"] or (one["row"], one["begun"]) in right]
        if known:
            found[kind] = _packed(known, alone, right)
            found[kind]["begun"] = sum(bool(line["begun"]) for line in known)
            found[kind]["leaks"] = sum(line.get("leaks", False) for line in known)
            found["size"], found["tokens"] = len(known[0]["pack"]), known[0]["asked"]
    return found


def _packed(
    known: list[dict[str, Any]], alone: dict[int, Any], right: dict[tuple[int, str], bool]
) -> dict[str, Any]:
    positions = []
    prompt = completion = 0.0
    for position in sorted({line["position"] for line in known}):
        here = [line for line in known if line["position"] == position]
        begun = [line["begun"] or alone[line["row"]]["begun"] for line in here]
        pairs = [
            (right[line["row"], text], right[line["row"], alone[line["row"]]["begun"]])
            for line, text in zip(here, begun, strict=True)
        ]
        positions.append(
            {
                "questions": len(here),
                "found": sum(bool(line["begun"]) for line in here),
                "right": sum(mine for mine, _ in pairs),
                "right_alone": sum(theirs for _, theirs in pairs),
                "only_packed": sum(mine and not theirs for mine, theirs in pairs),
                "only_alone": sum(theirs and not mine for mine, theirs in pairs),
            }
        )
        for line in here:
            again = {"prompt_tokens": 0, "tokens": 0} if line["begun"] else alone[line["row"]]
            prompt += line["prompt_tokens"] / len(line["pack"]) + again["prompt_tokens"]
            completion += line["tokens"] / len(line["pack"]) + again["tokens"]
    return {
        "positions": positions,
        "prompt_tokens": round(prompt),
        "completion_tokens": round(completion),
    }


def section(sums: dict[str, Any]) -> str:
    """Return the page's section, as Markdown."""
    one, size = sums["one"], sums["size"]
    lines = [
        HEADING,
        "",
        f"Measured on {one['questions']} rows of GSM8K with a small pair, greedy: "
        "Qwen2.5-Coder-1.5B-Instruct is the teacher, its 0.5B sibling the student (Q4_K_M files). "
        f"Each prompt holds eight worked examples. A call asks for {size} beginnings of about "
        f"{sums['tokens']} tokens. A missing one gets a request of its own, as in a job. In the "
        "first table the questions of a call change places, so that each takes every position. "
        f"The student alone is right on {sums['student alone'] / one['questions']:.1%} of these "
        "rows. If the line *all* shows less, guidance harms.",
    ]
    lines += _by_position(sums, "Packed, {words}:")
    for name, other in sums.get("others", {}).items():
        alone = f"{other['student alone'] / other['one']['questions']:.1%}"
        lines += _by_position(
            other, f"The same, {{words}}, finished by {name} (alone right on {alone}):"
        )
    leaks = [
        f"{sums[kind]['leaks']} of {sums[kind]['begun']} packed ({words})"
        for kind, words in _KINDS.items()
        if kind in sums
    ]
    lines += [
        "",
        "Some beginnings already hold the right answer, which the student then repeats: "
        f"{one['leaks']} of {one['questions']} with one question per call, {', '.join(leaks)}.",
        "",
        "The teacher reads and writes these tokens for a question, including repeated requests:",
        "",
    ]
    rows = [_tokens("one question per call", one["questions"], one, one)]
    for kind, words in _KINDS.items():
        if kind in sums:
            asked = sum(at["questions"] for at in sums[kind]["positions"])
            rows.append(_tokens(f"packed, {words}", asked, sums[kind], one))
    lines += table(["", "prompt tokens", "completion tokens", "bill, output 5x input"], rows)
    lines += ["", "`python -m benchmarks.packing` writes this section."]
    return "\n".join(lines)


def _by_position(sums: dict[str, Any], title: str) -> list[str]:
    lines = list[str]()
    for kind, words in _KINDS.items():
        if kind in sums:
            rows = [_cells(at, one) for at, one in enumerate(sums[kind]["positions"], 1)]
            rows.append(["all", *_cells(0, _total(sums[kind]["positions"]))[1:-1], "-"])
            head = ["position", "questions", "beginning found", "right (95%)"]
            head.append("right, one question per call")
            head.append("right only packed, only one per call; McNemar's p")
            lines += ["", title.format(words=words), "", *table(head, rows)]
    return lines


def _total(positions: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(at[name] for at in positions) for name in positions[0]}


def _cells(at: int, one: dict[str, int]) -> list[str]:
    low, high = wilson(one["right"], one["questions"])
    ahead, behind = one["only_packed"], one["only_alone"]
    test = mcnemar([True] * ahead + [False] * behind, [False] * ahead + [True] * behind, ("", ""))
    return [
        str(at),
        str(one["questions"]),
        f"{one['found'] / one['questions']:.0%}",
        f"{one['right'] / one['questions']:.1%} ({low:.0%}-{high:.0%})",
        f"{one['right_alone'] / one['questions']:.1%}",
        f"{ahead}, {behind}; {test.p_value:.2g}",
    ]


def _tokens(name: str, asked: int, used: dict[str, Any], one: dict[str, Any]) -> list[str]:
    prompt, completion = used["prompt_tokens"] / asked, used["completion_tokens"] / asked
    whole = (one["prompt_tokens"] + 5 * one["completion_tokens"]) / one["questions"]
    bill = f"{(prompt + 5 * completion) / whole:.0%}"
    return [name, f"{prompt:.0f}", f"{completion:.0f}", bill]


def main() -> None:
    """Sum the lines up, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=Path, nargs="?", help="JSON lines of what was measured")
    parser.add_argument("--student", help="name of another student; its answers are in LINES")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--sums", type=Path, default=SUMS)
    options = parser.parse_args()
    if options.lines:
        lines = map(json.loads, options.lines.read_text(encoding="utf-8").splitlines())
        known = (
            json.loads(options.sums.read_text(encoding="utf-8")) if options.sums.exists() else {}
        )
        others = known.get("others", {})
        if options.student:
            sums = {**known, "others": {**others, options.student: sums_of(lines)}}
        else:
            sums = {**sums_of(lines), "others": others}
        options.sums.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    text = section(json.loads(options.sums.read_text(encoding="utf-8")))
    before = options.page.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
    options.page.write_text(f"{before}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
