"""The page of results on real models, and its charts, from the summaries of runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from section import chart, gain_points, percent, section, title, whole_prompt
from summaries import BILL

from langchain_gkt.reporting.charts import write_figure
from langchain_gkt.reporting.table import Table

_ENOUGH = 100
"""Fewer rows decide nothing."""
_PART = re.compile("(?<=<!-- real models -->\n).*(?=<!-- real models end -->)", re.DOTALL)
"""What is ours of docs/results.md; the rest is the embedded pair's."""
PART = """
## Real models

{verdict}

{table}

All figures, the curves and examples: [Results on real models](results-real.md).

"""

HEAD = """# Results on real models

{verdict}

{table}

The lever is the *prompt's* length: most of a few-shot call's price is its prompt, which the teacher
reads whole. A `teacher_prompt=` of its own shows it less, while the student keeps all worked
examples: see [Evaluate](evaluate.md). The next table parts what the prompt saves from what the
guidance saves.

{savings}

Where the promise is not kept: without examples there is no prompt to shorten, and half of the bill
buys two thirds of an answer, which seldom hold the result. AQuA has four examples: two of them cost
more than half of the bill with a whole answer, and shown one, the teacher is right half as often.
qwen05 is a weak teacher: a few points are a tenth of its accuracy.

The embedded toys are in [Results](results.md).
{again}
Rows differ from section to section: they are what the time allowed. Below 100 rows a section shows
what such a run looks like, and decides nothing.

Written by `make results-real` from `examples/real_models/summaries/`, the figures of each run.
Greedy, on a CPU with instructions for bfloat16. OpenVINO's folders have int8 weights; its keys and
values are in bfloat16, for CommonsenseQA in 8 bits. So accuracies are those of the rounded models,
and a teacher's differ a little between sections. The first rows of each file, AQuA's are all there
were; the wording of CommonsenseQA's short prompt, of GSM8K's brief and plain ones and of its
instruction without examples was found on other rows of the same files.
Bills are reckoned at {prompt} dollars for a million prompt tokens and {completion} for a
million completion tokens, without a provider's cache of prompts, and are shares of what the teacher
alone costs on the whole prompt. qwen15 and qwen05 are Qwen2.5-Coder-1.5B-Instruct and
-0.5B-Instruct, smollm2 is SmolLM2-135M-Instruct. Seconds say only what a busy machine of two cores
took; a pair whose teacher's answers come from another run waits for the student alone.
"""


def write(summaries: Mapping[str, Mapping[str, Any]], docs: Path) -> None:
    """Write the page and its charts.

    Args:
        summaries: What `summaries.condense` made of each run, by the run's name.
        docs: The folder of the page.
    """
    (docs / "images").mkdir(parents=True, exist_ok=True)
    found = list(summaries.values())
    verdict, table = _verdict(found), _within_budget(found).markdown()
    results = docs / "results.md"
    if results.exists():
        part, text = PART.format(verdict=verdict, table=table), results.read_text(encoding="utf-8")
        results.write_text(_PART.sub(lambda _: part, text), encoding="utf-8")
    prices = found[0]["prices"] if found else {"input_mtok": "?", "output_mtok": "?"}
    parts = [
        HEAD.format(
            verdict=verdict,
            table=table,
            savings=_savings(found).markdown(),
            again=_second_helpings(found),
            prompt=prices["input_mtok"],
            completion=prices["output_mtok"],
        )
    ]
    for run, one in summaries.items():
        name = f"real-{run}"
        write_figure(chart(one), docs / "images" / f"{name}.svg", name, "svg")
        parts.append(section(one, name))
    (docs / "results-real.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _verdict(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Say which pairs keep the paper's promise."""
    reached = []
    for one in summaries:
        choice = one["within_budget"]
        if one["rows"] >= _ENOUGH and choice and choice["reached"] * 2 > choice["splits"]:
            drawn, guided = _drawn_and_guided(one)
            reached.append(
                f"- {title(one)}: {choice['reached']} of {choice['splits']} splits into halves; "
                f"the mean is {choice['mean_kept']:.0%} at {choice['mean_bill']:.0%}, and guidance "
                f"gains {gain_points(guided - drawn)} over a random router of whole answers"
            )
    claim = "**The paper promises 95% of the teacher's accuracy at 52% of its bill. On unseen rows"
    if not reached:
        return f"{claim}\nno pair keeps that in most splits.**"
    decided = sum(one["rows"] >= _ENOUGH for one in summaries)
    keep = f"{len(reached)} of {decided} pairs and tasks keep that in most splits:**"
    return "\n".join([claim, keep, "", *reached])


def _within_budget(summaries: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for one in summaries:
        choice, whole = one["within_budget"], whole_prompt(one)["ways"]
        lines.append(
            [
                title(one),
                str(one["rows"]),
                percent(whole["0"]["right"] / one["rows"]),
                percent(whole["all"]["right"] / one["rows"]),
                *(
                    [
                        f"{choice['policy']}, {choice['tokens']} tokens",
                        f"{percent(choice['unseen'])} of {choice['unseen_rows']}",
                        f"{choice['kept']:.0%}",
                        f"{choice['bill']:.0%}",
                        f"{choice['reached']} of {choice['splits']}",
                        f"{choice['mean_kept']:.0%} at {choice['mean_bill']:.0%}",
                    ]
                    if choice
                    else ["-"] * 6
                ),
            ]
        )
    return Table(
        title="The most accurate setting within half the bill, on unseen rows",
        head=[
            *("pair and task", "rows", "student", "teacher", "chosen", "unseen", "keeps"),
            *("pays", "reached", "mean of splits"),
        ],
        rows=lines,
        notes=[
            f"chosen: what `choose(max_bill={BILL})` takes on half of the rows; keeps, pays: "
            "accuracy and price on the other half, of the teacher alone with the whole prompt",
            "reached: in how many splits into halves it keeps 95% or more and pays 52% or less; "
            "the splits share rows, so they are no independent trials",
        ],
    )


def _second_helpings(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Say what asking the teacher again in mid-answer gave where it was tried."""
    tried = [one for one in summaries if "again" in one]
    said = "There is no second helping in mid-answer: each section says what a second call costs."
    if tried:
        ways = [way for one in tried for way in one["again"]["ways"]]
        gains = sorted(way["right"] / way["rows"] - way["mixture"] for way in ways)
        said += (
            f" It was tried on {' and '.join(map(title, tried))}: where the first token of a step "
            "had a high entropy, the teacher was asked again, and the student went on from there. "
            "Compared with one call of the same price, accuracy changed by "
            f"{gain_points(gains[0])} to {gain_points(gains[-1])}."
        )
    return fill(said, width=100)


def _savings(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Say how much of the saving is the prompt's, and how much the guidance's."""
    lines = []
    for one in summaries:
        choice = one["within_budget"]
        if not choice or not choice["tokens"]:
            lines.append([title(one), *["-"] * 6, "none found that pays"])
            continue
        ways = one["policies"][choice["policy"]]["ways"]
        alone, way = ways["all"], ways[str(choice["tokens"])]
        drawn, guided = _drawn_and_guided(one)
        lines.append(
            [
                title(one),
                choice["policy"],
                f"{percent(alone['right'] / one['rows'])} at {percent(alone['of_bill'])}",
                str(choice["tokens"]),
                f"{percent(guided)} at {percent(way['of_bill'])}",
                percent(way["leak"]),
                percent(drawn),
                gain_points(guided - drawn),
            ]
        )
    return Table(
        title="What the prompt saves, and what the guidance saves",
        head=[
            *("pair and task", "prompt", "teacher's whole answers", "tokens", "guided", "leak"),
            *("random router", "guidance gains"),
        ],
        rows=lines,
        notes=[
            "prompt, tokens: those of the table above; accuracies of all rows, also of the half "
            "that chose, at shares of the bill; leak: how many beginnings hold the answer already",
            "random router: gets as many of the teacher's whole answers to that prompt as the "
            "price of the guidance buys; guidance gains: what is guided above it",
        ],
    )


def _drawn_and_guided(one: Mapping[str, Any]) -> tuple[float, float]:
    """Return the accuracy of a random router at the price of the chosen setting, and of that."""
    choice, rows = one["within_budget"], one["rows"]
    ways = one["policies"][choice["policy"]]["ways"]
    student, alone, way = (ways[length] for length in ("0", "all", str(choice["tokens"])))
    share = way["of_bill"] / alone["of_bill"]  # of the questions; the others are the student's
    drawn = student["right"] + share * (alone["right"] - student["right"])
    return drawn / rows, way["right"] / rows
