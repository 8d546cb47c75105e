"""The section of one run: its tables, its chart and examples of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import pyplot
from matplotlib.ticker import PercentFormatter
from summaries import BILL

from langchain_gkt.reporting.table import Table

PAPER = {"gsm8k": 40, "csqa": 30, "aqua": 20}
"""The guidance tokens of the paper."""
_WEIGHTS = {"qwen15": 1.54, "qwen05": 0.49, "smollm2": 0.135}
"""Billions of weights, as the publishers count them."""
_KINDS = {
    "fixed length": ("o", "-"),
    "cascade of whole answers": ("^", "--"),
    "gated guidance": ("s", "-."),
    "random router": ("", ":"),
    "predictor": ("D", ""),
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito


def section(one: Mapping[str, Any], name: str) -> str:
    """Write the section of a run.

    Args:
        one: Its summary.
        name: Of its chart's file.
    """
    rows, lines = one["rows"], []
    for policy, found in one["policies"].items():
        least = found["ways"]["all"]["dollars_per_thousand"]
        for length, way in found["ways"].items():
            if length == "0" and policy != next(iter(one["policies"])):
                continue
            tokens = {"0": "student alone", "all": "teacher alone"}.get(length, f"{length} tokens")
            low, high = way["interval"]
            lines.append(
                [
                    "-" if length == "0" else policy,
                    tokens + (" (paper's)" if length == str(PAPER.get(one["task"])) else ""),
                    f"{percent(way['right'] / rows)} ({100 * low:.0f}-{100 * high:.0f})",
                    "-" if length in ("0", "all") else percent(way["leak"]),
                    f"{way['teacher_prompt_tokens']:.0f} + {way['teacher_completion_tokens']:.0f}",
                    f"{way['student_completion_tokens']:.0f}",
                    f"{way['dollars_per_thousand']:.4f}",
                    percent(way["dollars_per_thousand"] / least) if least else "?",
                    "?" if way["of_bill"] is None else percent(way["of_bill"]),
                    f"{way['median_seconds']:.1f}",
                    _speed_up(one, found["ways"]["all"], way),
                ]
            )
    table = Table(
        title=f"{one['task']}: {rows} questions",
        head=[
            *("teacher's prompt", "guidance", "accuracy (95%)", "leak", "teacher tokens"),
            *("student tokens", "$ per 1,000", "of the cheapest", "of bill"),
            *("seconds", "speed"),
        ],
        rows=lines,
        notes=[
            "leak: how often the guidance alone contains the answer",
            "teacher tokens: prompt + completion of one answer",
            "of the cheapest: share of the least that the teacher alone costs with the same prompt "
            "(a batch halves both)",
            "of bill: share of the price of the teacher alone with the whole prompt",
            "speed: by arithmetic, against the teacher alone with the same prompt: new tokens "
            "times the weights that each one reads. Prompts are left out",
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
            [way, ", ".join(f"{percent(x)}: {percent(y)}" for x, y in points)]
            for way, points in one["frontier"].items()
        ],
        notes=[
            "for each budget, half of the rows chooses the most accurate setting and the other "
            "half tests it, then the other way round",
            "predictor: cross-fitted",
            "random router: draws lots between the student and the teacher's whole answer, its two "
            "ends",
        ],
    )
    engine = f"Run by {told}.\n\n" if (told := one.get("engine")) else ""
    picture = f"![{title(one)}](../../images/{name}.svg)"
    return (
        f"# {title(one)}\n\n{engine}{picture}\n\n{table.markdown()}\n\n"
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
            "broken: right alone and wrong with guidance",
            "mended: the other way round",
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


def chart(one: Mapping[str, Any]) -> Any:
    """Draw a run's accuracies against their prices.

    Args:
        one: Its summary.
    """
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
    goal = 0.95 * whole_prompt(one)["ways"]["all"]["right"] / one["rows"]
    axes.axhline(goal, color="#888888", linewidth=0.8)
    axes.axvline(BILL, color="#888888", linewidth=0.8)
    axes.annotate("95% of the teacher's accuracy", (1.0, goal), ha="right", va="bottom", size=8)
    axes.set(xlabel="share of the teacher's bill", ylabel="accuracy on unseen rows")
    axes.set_xlim(-0.02, 1.05)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title(one)}, {one['rows']} questions", loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def whole_prompt(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the policy whose teacher sees the whole prompt.

    Args:
        one: A run's summary.
    """
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


def title(one: Mapping[str, Any]) -> str:
    """Return a run's title.

    Args:
        one: Its summary.
    """
    shots = " without examples" if one["shots"] == 0 else ""
    return f"{one['task']}{shots}: {one['teacher']} guides {one['student']}"


def _second_call(one: Mapping[str, Any]) -> str:
    """Say what asking the teacher again in mid-answer costs, and gives where it was tried."""
    lines = []
    for name, found in one["policies"].items():
        alone = found["ways"]["all"]
        prompt, whole = alone["teacher_prompt_tokens"], alone["teacher_completion_tokens"]
        prices = [float(one["prices"][key]) for key in ("input_mtok", "output_mtok")]
        lines.append(
            f"{name!r}: as much as {prompt * prices[0] / prices[1]:.0f} more tokens of guidance, "
            f"where a whole answer has {whole:.0f}"
        )
    cost = (
        "A second call in mid-answer, which reads the teacher's prompt again, would cost before "
        f"its first token, by prompt: {'; '.join(lines)}."
    )
    return f"{cost}\n\n{_again(one).markdown()}" if "again" in one else cost


def _again(one: Mapping[str, Any]) -> Table:
    policy, ways = one["again"]["policy"], one["again"]["ways"]
    return Table(
        title=f"A second request where a step begins unsurely ({policy}, {ways[0]['rows']} rows)",
        head=[
            *("tokens", "asked again", "more tokens", "accuracy", "of bill", "one call"),
            "a second request gains",
        ],
        rows=[
            [
                str(way["tokens"]),
                percent(way["asked"]),
                str(way["more"]),
                percent(way["right"] / way["rows"]),
                percent(way["of_bill"]),
                percent(way["mixture"]),
                gain_points(way["right"] / way["rows"] - way["mixture"]),
            ]
            for way in ways
        ],
        notes=[
            "asked again: where the entropy of a step's first token was above a threshold, set for "
            "a quarter, half and all of the answers in which the student begins a further step; it "
            "went on from what the teacher added, which is 'all' where that wrote the rest",
            "one call: the best that lots drawn between two lengths of one call give at the same "
            "price and with the same prompt, the student and the whole answer among them",
        ],
    )


def _quoted(text: str) -> str:
    return " ".join(text.split()).replace("*", "\\*").replace("<", "&lt;")


def percent(value: float) -> str:
    """Write a share out.

    Args:
        value: The share.
    """
    return f"{100 * value:.1f}%"


def gain_points(gain: float) -> str:
    """Write a gain of accuracy out.

    Args:
        gain: The gain, as a share.
    """
    return f"{round(100 * gain, 1) + 0.0:+.1f} points"  # no negative zero
