"""The page of results on real models, and its charts, from the summaries of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.ticker import PercentFormatter
from summaries import BILL

from langchain_gkt.evaluation.results.charts import write_figure
from langchain_gkt.reporting.table import Table

PAPER = {"gsm8k": 40, "csqa": 30, "aqua": 20}
"""The guidance tokens of the paper."""
_WEIGHTS = {"qwen15": 1.54, "qwen05": 0.49, "smollm2": 0.135}
"""Billions of weights, as the publishers count them."""
_ENOUGH = 100
"""Fewer rows decide nothing."""
_KINDS = {
    "fixed length": ("o", "-"),
    "cascade of whole answers": ("^", "--"),
    "gated guidance": ("s", "-."),
    "random router": ("", ":"),
    "predictor": ("D", ""),
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito

HEAD = """# Results on real models

{verdict}

{table}

The lever is the *prompt's* length: most of a few-shot call's price is its prompt, which the teacher
reads whole. A `teacher_prompt=` of its own shows it less, while the student keeps all worked
examples: see [Evaluate](evaluate.md). The next table parts what the prompt saves from what the
guidance saves.

{savings}

The embedded toys are in [Results](results.md).
There is no second helping in mid-answer: each section says what a second call would cost. What it
would do for accuracy was not measured.
Rows differ from section to section: they are what the time allowed. Below 100 rows a section shows
what such a run looks like, and decides nothing.

Written by `make results-real` from `examples/real_models/summaries/`, the figures of each run.
Greedy, on CPUs: with instructions for bfloat16 where a section says bf16, else with AVX2 alone; by
torch in int8 where a section names no engine. OpenVINO's folders have int8 weights. So accuracies
are those of the rounded models, and a teacher's differ a little between sections. The first rows
of each file; the wording of CommonsenseQA's short prompt, and of GSM8K's instruction without
examples, was found on other rows.
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
    parts = [_head(list(summaries.values()))]
    for run, one in summaries.items():
        name = f"real-{run}"
        write_figure(_chart(one), docs / "images" / f"{name}.svg", name, "svg")
        parts.append(_section(one, name))
    (docs / "results-real.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _head(summaries: Sequence[Mapping[str, Any]]) -> str:
    lines, reached = [], []
    for one in summaries:
        title, choice = _title(one), one["within_budget"]
        whole = _whole(one)["ways"]
        enough = one["rows"] >= _ENOUGH
        if enough and choice and choice["reached"] * 2 > choice["splits"]:
            drawn, guided = _drawn_and_guided(one)
            reached.append(
                f"- {title}: {choice['reached']} of {choice['splits']} splits into halves; the "
                f"mean is {choice['mean_kept']:.0%} at {choice['mean_bill']:.0%}, and guidance "
                f"gains {_points(guided - drawn)} over a random router of whole answers"
            )
        lines.append(
            [
                title,
                str(one["rows"]),
                _percent(whole["0"]["right"] / one["rows"]),
                _percent(whole["all"]["right"] / one["rows"]),
                *(
                    [
                        f"{choice['policy']}, {choice['tokens']} tokens",
                        f"{_percent(choice['unseen'])} of {choice['unseen_rows']}",
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
    claim = "**The paper promises 95% of the teacher's accuracy at 52% of its bill. On unseen rows"
    decided = sum(one["rows"] >= _ENOUGH for one in summaries)
    verdict = (
        f"{claim}\n{len(reached)} of {decided} pairs and tasks keep that in most splits:**\n\n"
        + "\n".join(reached)
        if reached
        else f"{claim}\nno pair keeps that in most splits.**"
    )
    table = Table(
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
    prices = summaries[0]["prices"] if summaries else {"input_mtok": "?", "output_mtok": "?"}
    return HEAD.format(
        verdict=verdict,
        table=table.markdown(),
        savings=_savings(summaries).markdown(),
        prompt=prices["input_mtok"],
        completion=prices["output_mtok"],
    )


def _savings(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Say how much of the saving is the prompt's, and how much the guidance's."""
    lines = []
    for one in summaries:
        choice = one["within_budget"]
        if not choice or not choice["tokens"]:
            lines.append([_title(one), *["-"] * 6, "none found that pays"])
            continue
        ways = one["policies"][choice["policy"]]["ways"]
        alone, way = ways["all"], ways[str(choice["tokens"])]
        drawn, guided = _drawn_and_guided(one)
        lines.append(
            [
                _title(one),
                choice["policy"],
                f"{_percent(alone['right'] / one['rows'])} at {_percent(alone['of_bill'])}",
                str(choice["tokens"]),
                f"{_percent(guided)} at {_percent(way['of_bill'])}",
                _percent(way["leak"]),
                _percent(drawn),
                _points(guided - drawn),
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


def _points(gain: float) -> str:
    return f"{round(100 * gain, 1) + 0.0:+.1f} points"  # no negative zero


def _section(one: Mapping[str, Any], name: str) -> str:
    rows, lines = one["rows"], []
    for policy, found in one["policies"].items():
        for length, way in found["ways"].items():
            if length == "0" and policy != next(iter(one["policies"])):
                continue
            tokens = {"0": "student alone", "all": "teacher alone"}.get(length, f"{length} tokens")
            low, high = way["interval"]
            lines.append(
                [
                    "-" if length == "0" else policy,
                    tokens + (" (paper's)" if length == str(PAPER.get(one["task"])) else ""),
                    f"{_percent(way['right'] / rows)} ({100 * low:.0f}-{100 * high:.0f})",
                    "-" if length in ("0", "all") else _percent(way["leak"]),
                    f"{way['teacher_prompt_tokens']:.0f} + {way['teacher_completion_tokens']:.0f}",
                    f"{way['student_completion_tokens']:.0f}",
                    f"{way['dollars_per_thousand']:.4f}",
                    "?" if way["of_bill"] is None else _percent(way["of_bill"]),
                    f"{way['median_seconds']:.1f}",
                    _speed_up(one, found["ways"]["all"], way),
                ]
            )
    table = Table(
        title=f"{one['task']}: {rows} questions",
        head=[
            *("teacher's prompt", "guidance", "accuracy (95%)", "leak", "teacher tokens"),
            *("student tokens", "$ per 1,000", "of bill", "seconds", "speed"),
        ],
        rows=lines,
        notes=[
            "leak: how often the guidance alone contains the answer; teacher tokens: prompt and "
            "completion of one answer; of bill: of the teacher alone with the whole prompt",
            "speed: by arithmetic, against the teacher alone with the same prompt: new tokens "
            "times the weights that each one reads; prompts are left out",
            *(
                f"{policy}: the teacher sees {_prompt(found['teacher_prompt'])}"
                f"{_cutting(found['guidance'])}"
                for policy, found in one["policies"].items()
            ),
        ],
    )
    frontier = Table(
        title="All ways on rows that the choice has not seen",
        head=["way", "share of the bill: accuracy"],
        rows=[
            [way, ", ".join(f"{_percent(x)}: {_percent(y)}" for x, y in points)]
            for way, points in one["frontier"].items()
        ],
        notes=[
            "for each budget, half of the rows chooses the most accurate setting and the other "
            "half tests it, then the other way round; predictor: cross-fitted; random router: "
            "draws lots between the student and the teacher's whole answer, its two ends",
        ],
    )
    engine = f"Run by {told}.\n\n" if (told := one.get("engine")) else ""
    return (
        f"## {_title(one)}\n\n{engine}{table.markdown()}\n\n![{_title(one)}](images/{name}.svg)\n\n"
        f"{frontier.markdown()}\n\n{_second_call(one)}\n\n{_beginnings(one)}"
    )


def _speed_up(one: Mapping[str, Any], alone: Mapping[str, Any], way: Mapping[str, Any]) -> str:
    """Say how much sooner one user's answer is written, if reading weights takes all the time."""
    teacher, student = (_WEIGHTS.get(one[role]) for role in ("teacher", "student"))
    if teacher is None or student is None:
        return "?"
    seconds = [
        each["teacher_completion_tokens"] * teacher + each["student_completion_tokens"] * student
        for each in (alone, way)
    ]
    return f"{seconds[0] / seconds[1]:.2f}x" if seconds[1] else "-"


def _cutting(guidance: Any) -> str:
    """Say where a policy cuts, if not at the last word."""
    fields = guidance or {}
    told = [f"cut={fields['cut']!r}"] if fields.get("cut", "word") != "word" else []
    told += [f"min_tokens={fields['min_tokens']}"] if fields.get("min_tokens") else []
    return f"; `{', '.join(told)}`" if told else ""


def _beginnings(one: Mapping[str, Any]) -> str:
    """Say what short guidance does to answers that the student alone gets right."""
    lines = [
        [
            policy,
            length,
            f"{found['broken']} of {found['right_alone']}",
            f"{found['mended']} of {one['rows'] - found['right_alone']}",
            str(found["cut_inside_a_sentence"]),
            f"{found['of_these_right']} ({found['of_these_right_alone']} alone)",
        ]
        for policy, lengths in one["beginnings"].items()
        for length, found in lengths.items()
    ]
    table = Table(
        title="What a beginning does to the student's answers",
        head=["policy", "tokens", "broken", "mended", "cut inside a sentence", "of these right"],
        rows=lines,
        notes=[
            "broken: right alone and wrong with guidance; mended: the other way round",
        ],
    )
    policy, lengths = next(iter(one["beginnings"].items()))
    quotes = [
        f"> {_quoted(example['question'])}\n>\n> Alone: {_quoted(example['alone'])}\n>\n"
        f"> Guided: **[{_quoted(example['guidance'])}]** "
        f"{_quoted(example['guided'][len(example['guidance']) :])}\n"
        for length, found in lengths.items()
        for example in found["examples"]
        if length == next(iter(lengths))
    ]
    if not quotes:
        return f"{table.markdown()}\n"
    shown = f"Answers that {next(iter(lengths))} tokens broke ({policy}; the guidance in brackets):"
    return f"{table.markdown()}\n\n{shown}\n\n" + "\n".join(quotes)


def _chart(one: Mapping[str, Any]) -> Any:
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    pyplot.close(figure)
    policies = list(one["policies"])
    for way, points in one["frontier"].items():
        kind, _, policy = way.partition(", ")
        marker, line = _KINDS[kind]
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            linestyle=line or "none",
            marker=marker,
            markersize=7 if kind == "predictor" else 4,
            color=_COLOURS[policies.index(policy) % len(_COLOURS)],
            label=way,
            alpha=0.85,
        )
    goal = 0.95 * _whole(one)["ways"]["all"]["right"] / one["rows"]
    axes.axhline(goal, color="#888888", linewidth=0.8)
    axes.axvline(BILL, color="#888888", linewidth=0.8)
    axes.annotate("95% of the teacher's accuracy", (1.0, goal), ha="right", va="bottom", size=8)
    axes.set(xlabel="share of the teacher's bill", ylabel="accuracy on unseen rows")
    axes.set_xlim(-0.02, 1.05)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{_title(one)}, {one['rows']} questions", loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _whole(one: Mapping[str, Any]) -> Mapping[str, Any]:
    policies = one["policies"].values()
    return next((p for p in policies if not p["teacher_prompt"]), next(iter(policies)))


def _prompt(steps: Any) -> str:
    if not steps:
        return "the whole prompt"
    shown = []
    for step in steps:
        fields = {} if isinstance(step, str) else dict(step)
        name = step if isinstance(step, str) else fields.pop("prompt")
        told = ", ".join(f"{key}={value!r}" for key, value in fields.items())
        shown.append(f"`{name}({told})`")
    return " then ".join(shown)


def _title(one: Mapping[str, Any]) -> str:
    shots = " without examples" if one["shots"] == 0 else ""
    return f"{one['task']}{shots}: {one['teacher']} guides {one['student']}"


def _second_call(one: Mapping[str, Any]) -> str:
    """Say what asking the teacher again in mid-answer would cost: it reads its prompt again."""
    lines = []
    for name, found in one["policies"].items():
        alone = found["ways"]["all"]
        prompt, whole = alone["teacher_prompt_tokens"], alone["teacher_completion_tokens"]
        prices = [float(one["prices"][key]) for key in ("input_mtok", "output_mtok")]
        lines.append(
            f"{name!r}: as much as {prompt * prices[0] / prices[1]:.0f} more tokens of guidance, "
            f"where a whole answer has {whole:.0f}"
        )
    return (
        "A second call in mid-answer, which reads the teacher's prompt again, would cost before "
        f"its first token, by prompt: {'; '.join(lines)}."
    )


def _quoted(text: str) -> str:
    return " ".join(text.split()).replace("*", "\\*").replace("<", "&lt;")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
