"""The page of results on real models, and its charts, from the summaries of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from section import chart, gain_points, percent, section, title, whole_prompt
from summaries import BILL

from langchain_gkt.costs.listed import MIN_CACHED_TOKENS
from langchain_gkt.reporting.charts import write_figure
from langchain_gkt.reporting.table import Table

_ENOUGH = 100
"""Fewer rows decide nothing."""
TASKS = {
    "gsm8k": "GSM8K, eight worked examples",
    "gsm8k-0-shot": "GSM8K, no examples",
    "csqa": "CommonsenseQA, seven worked examples",
    "aqua": "AQuA, four worked examples",
}
"""Names of the tasks, by what the names of their runs begin with."""

HEAD = """# Real models

{verdict}

Written by `make results-real` from `examples/real_models/summaries/`. The runs are of November
2026. Each pair and task has a page with all settings, curves and examples: see the end.

{table}

## What the prompt saves, and what the guidance saves

Most of a few-shot call's price is its prompt, and the teacher reads all of it. A
`teacher_prompt=` shows the teacher less, while the student keeps all worked examples: see
[The teacher's prompt](../teacher-prompt.md). On this page the shorter *prompt* makes the saving.
Guidance adds next to nothing to it:

{savings}

Why the other pairs and tasks do not keep the promise:

- Without examples there is no prompt to shorten. Half of the bill buys two thirds of an answer,
  and these seldom hold the result.
- AQuA has four examples. With two, a whole answer costs more than half of the bill. With one,
  the teacher is right half as often.
- qwen05 is a weak teacher. A loss of a few points is a tenth of its accuracy.

{again}

## How it was measured

- The models: qwen15 and qwen05 are Qwen2.5-Coder-1.5B-Instruct and -0.5B-Instruct, smollm2 is
  SmolLM2-135M-Instruct. They answer greedily, on a CPU with instructions for bfloat16.
  The OpenVINO models have int8 weights. Their KV cache is in bfloat16, for CommonsenseQA in 8 bits.
  So accuracies are those of the rounded models. The accuracy of a teacher differs a little between
  pages.
- The rows are the first ones of each file, and all that there are of AQuA. Their number is what the
  time allowed. We found the wording of the prompts `short`, `brief` and `plain` on other rows of
  the same files.
- The bill: {prompt} dollars for a million prompt tokens and {completion} for a million
  completion tokens. Shares are shares of the whole-prompt bill: the price of the teacher alone with
  the whole prompt. Caches begin at {minimum:,} tokens. The longest prompt here has
  {longest:,.0f}, so no call is cached. A batch halves every bill, also that of the teacher alone.
- The seconds are those of a busy machine of two cores. If the teacher's answers come from another
  run, they count the student's time alone.

The models that come with the package are toys: [The embedded pair](toy-models.md).

## By task

{tasks}
"""


def write(summaries: Mapping[str, Mapping[str, Any]], docs: Path) -> None:
    """Write the page and its charts.

    Args:
        summaries: What `summaries.condense` made of each run, by the run's name.
        docs: The folder of the page.
    """
    pages = docs / "measurements" / "real-models"
    for folder in (docs / "images", pages):
        folder.mkdir(parents=True, exist_ok=True)
    found = list(summaries.values())
    prices = found[0]["prices"] if found else {"input_mtok": "?", "output_mtok": "?"}
    head = HEAD.format(
        verdict=_verdict(found),
        table=_within_budget(found).markdown(),
        savings=_savings(found).markdown(),
        again=_second_requests(found),
        prompt=prices["input_mtok"],
        completion=prices["output_mtok"],
        minimum=MIN_CACHED_TOKENS,
        longest=_longest_prompt(found),
        tasks=_by_task(summaries),
    )
    (pages.parent / "real-models.md").write_text(head, encoding="utf-8")
    for run, one in summaries.items():
        name = f"real-{run}"
        write_figure(chart(one), docs / "images" / f"{name}.svg", name, "svg")
        (pages / f"{run}.md").write_text(section(one, name).rstrip() + "\n", encoding="utf-8")


def _by_task(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a picture for each task, and links to the pages of its pairs."""
    parts = []
    for task in sorted({_task_of(run) for run in summaries}):
        runs = [run for run in summaries if _task_of(run) == task]
        # The last pair is the one of the strongest teacher and student where there are several.
        shown = next((run for run in runs if run.endswith("qwen15-qwen05")), runs[-1])
        links = [f"- [{title(summaries[run])}](real-models/{run}.md)" for run in runs]
        picture = f"![{title(summaries[shown])}](../images/real-{shown}.svg)"
        parts.append("\n\n".join([f"### {TASKS.get(task, task)}", picture, "\n".join(links)]))
    return "\n\n".join(parts)


def _task_of(run: str) -> str:
    """Return the part of a run's name that names its task; the rest are teacher and student."""
    return run.rsplit("-", 2)[0]


def _verdict(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Say which pairs keep the paper's promise."""
    reached = []
    for one in summaries:
        choice = one["within_budget"]
        if one["rows"] >= _ENOUGH and choice and choice["reached"] * 2 > choice["splits"]:
            drawn, guided = _drawn_and_guided(one)
            reached.append(
                f"- {title(one)}: kept in {choice['reached']} of {choice['splits']} splits into "
                f"halves. The mean is {choice['mean_kept']:.0%} of the accuracy at "
                f"{choice['mean_bill']:.0%} of the whole-prompt bill. That price is "
                f"{_of_least(one)} of the cheapest way to ask the teacher alone. Guidance gains "
                f"{gain_points(guided - drawn)} over a random router of whole answers"
            )
    claim = "**The paper promises 95% of the teacher's accuracy at 52% of its bill."
    if not reached:
        return f"{claim} On unseen rows no pair keeps that in most splits.**"
    decided = sum(one["rows"] >= _ENOUGH for one in summaries)
    keep = f"On unseen rows {len(reached)} of {decided} pairs and tasks keep that in most splits:**"
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
                        _of_least(one),
                        f"{choice['reached']} of {choice['splits']}",
                        f"{choice['mean_kept']:.0%} at {choice['mean_bill']:.0%}",
                    ]
                    if choice
                    else ["-"] * 7
                ),
            ]
        )
    return Table(
        title="The most accurate setting within half the bill, on unseen rows",
        head=[
            *("pair and task", "rows", "student", "teacher", "chosen", "unseen", "keeps"),
            *("pays", "of the cheapest", "reached", "mean of splits"),
        ],
        rows=lines,
        notes=[
            f"chosen: what `choose(max_bill={BILL})` takes on half of the rows",
            "unseen: its accuracy on the other half",
            "keeps, pays: its accuracy and price on the other half, as shares of the teacher alone "
            "with the whole prompt",
            "of the cheapest: its price on all rows, as a share of the cheapest way to ask the "
            "teacher alone with the same prompt",
            "reached: in how many splits into halves the choice keeps 95% or more and pays 52% or "
            "less. The splits share rows, so they are not independent trials",
            "mean of splits: what the choice keeps and pays, on average",
        ],
    )


def _of_least(one: Mapping[str, Any]) -> str:
    """Return the price of the chosen setting, of the teacher's alone with the same prompt."""
    choice = one["within_budget"]
    ways = one["policies"][choice["policy"]]["ways"]
    way, alone = ways[str(choice["tokens"])], ways["all"]
    return f"{way['dollars_per_thousand'] / alone['dollars_per_thousand']:.0%}"


def _longest_prompt(summaries: Sequence[Mapping[str, Any]]) -> float:
    """Return the tokens of the teacher's longest prompt, as the mean of its task."""
    prompts = [whole_prompt(one)["ways"]["all"]["teacher_prompt_tokens"] for one in summaries]
    return max(prompts, default=0)


def _second_requests(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Say what asking the teacher again in mid-answer gave where it was tried."""
    tried = [one for one in summaries if "again" in one]
    said = "The chain makes no second request in mid-answer: each page says what it would cost."
    if tried:
        ways = [way for one in tried for way in one["again"]["ways"]]
        gains = sorted(way["right"] / way["rows"] - way["mixture"] for way in ways)
        said += (
            f" We tried it on {' and '.join(f'*{title(one)}*' for one in tried)}. Where the first "
            "token of a step had a high entropy, we asked the teacher again, and the student "
            "continued from there. Compared with one call of the same price, accuracy changed by "
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
            "prompt, tokens: as in the table above",
            "x% at y%: x% of all rows are right, at y% of the bill. The rows that chose are among "
            "them",
            "leak: how many beginnings hold the answer already",
            "random router: gets as many of the teacher's whole answers to that prompt as the "
            "price of the guidance buys",
            "guidance gains: points of guided answers above the router",
        ],
    )


def _drawn_and_guided(one: Mapping[str, Any]) -> tuple[float, float]:
    """Return the accuracy of a random router at the price of the chosen setting, and of that."""
    choice, rows = one["within_budget"], one["rows"]
    ways = one["policies"][choice["policy"]]["ways"]
    student, alone, way = (ways[length] for length in ("0", "all", str(choice["tokens"])))
    share = way["of_bill"] / alone["of_bill"]  # of the questions. The others are the student's
    drawn = student["right"] + share * (alone["right"] - student["right"])
    return drawn / rows, way["right"] / rows
