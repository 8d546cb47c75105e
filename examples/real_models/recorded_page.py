"""The page docs/measurements/recorded-teachers.md and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recorded_figures import KEPT, SPLITS

from langchain_gkt.reporting.charts import COLOURS, new_figure, percent_axis, write_figure
from langchain_gkt.reporting.table import Table

SHOWN = ("0.2", "0.4", "0.6", "0.8")
WANTED = 5
"""Points over the random router."""
_LOOKS = {
    "agreement": ("D", COLOURS[5], "-"),
    "confidence": ("^", COLOURS[3], "-"),
    "random router": ("", "#666666", ":"),
    "oracle": ("", COLOURS[0], "--"),
}

HEAD = """# Recorded cloud teachers

{summary}

`make results-recorded` writes this page. The runs are of {date}. Others recorded the teachers'
answers, so we made no call: see [Recorded teachers](../recorded-teachers.md). The student reads all
worked examples, and the teacher reads none of them. vLLM ran the students in bfloat16, from
weights that had been rounded to 4 bits (Q4_K_M).

{tasks}

## How to read it

- For each budget, half of the rows chooses the most accurate threshold that costs no more, and
  the other half tests it. The figures are means over {splits} splits and both directions.
- *agreement*: the student answers five times at temperature 0.7. If too few of these answers
  agree, the teacher writes the whole answer. Else the most common answer counts.
- *confidence*: if the student is unsure of its first tokens, the teacher writes the whole answer.
- *over router*, in brackets: points of accuracy over a random router, which draws lots between
  student and teacher, at the same price.
- *first tokens*: the student continues the beginning of the teacher's answer, greedily. A wordy
  beginning makes it wordy. In an earlier run on 100 rows of csqa, its answers had the paper's limit
  of 100 new tokens. After 30 tokens of gpt-4o-mini, 64 of them met that limit, and 9 of these 64
  were right. Here an answer has room for about 500 tokens (gsm8k) or 300 (csqa).
- We wanted {wanted} points over the router at bills from 20% to 80%. {reached}
  after every teacher.
  Elsewhere the student's answers often agree on a wrong one: see the tables of answers that agree.
- *oracle*: asks only where the student is wrong and the teacher right. No real router can do that.
  It shows what is left to win.
- If a teacher's answers to a shorter prompt were recorded too, they have lines of their own. They
  are the cheapest way to ask it alone: compare the columns *alone* and *$ per 1,000*.
- *as gpt-5-mini*: the same answers at the list price of gpt-5-mini. A completion token costs eight
  prompt tokens there. Prompts of less than 1,024 tokens are not cached. A batch halves every bill,
  also that of the teacher alone.
- Bills count the teacher's own prompt and completion tokens, at the price of the table. 100% is the
  teacher alone with the same prompt. The student is free.

## Beside a public router

[RouteLLM](https://lmsys.org/blog/2024-07-01-routellm/) reports 95% of GPT-4's accuracy on GSM8K at
35% less cost. Its other model is Mixtral-8x7B, a stronger student. By our rules Mixtral is right in
64.0% of the 1,319 rows, and GPT-4 in 89.8%. Drawing lots between these two keeps 95% at 83% of the
calls. RouteLLM's repository counts 85.7% for GPT-4, because it scores 54 rows wrongly.{ours}
"""


def write(summaries: Mapping[str, Mapping[str, Any]], docs: Path) -> None:
    """Write the page and its pictures.

    Args:
        summaries: What `condense` made of each run, by the run's name.
        docs: The folder of the docs.
    """
    for folder in (docs / "measurements", docs / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for (task, student), mine in _groups(summaries).items():
        pictures = []
        for name, one in mine.items():
            write_figure(_chart(one), docs / "images" / f"recorded-{name}.svg", name, "svg")
            pictures.append(f"![{_title(one)}](../images/recorded-{name}.svg)")
        tables = [_agreement_table(mine), _prefix_table(mine), _dearer_table(mine)]
        more = [table.markdown() for table in tables if table.rows]
        title = f"## {task}, student {student}"
        parts.append("\n\n".join([title, _table(mine).markdown(), *pictures, *more]))
    text = HEAD.format(
        summary="\n".join(f"- {line}" for line in _summary(summaries)),
        date=" and ".join(sorted({one["date"] for one in summaries.values()})),
        tasks="\n\n".join(parts),
        splits=SPLITS,
        wanted=WANTED,
        reached=_reached(summaries),
        ours=_beside_routers(summaries.get("gsm8k-gpt-4-qwen15")),
    )
    (docs / "measurements" / "recorded-teachers.md").write_text(text, encoding="utf-8")


def _groups(
    summaries: Mapping[str, Mapping[str, Any]],
) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    """Return the runs by task and student, the strongest student of a task first."""
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for name, one in summaries.items():
        student = name.rpartition("-")[2]
        groups.setdefault((one["task"], student), {})[name] = one

    def order(group: tuple[tuple[str, str], dict[str, Mapping[str, Any]]]) -> tuple[str, float]:
        return group[0][0], -max(one["right"]["student"] for one in group[1].values())

    return dict(sorted(groups.items(), key=order))


def _title(one: Mapping[str, Any]) -> str:
    return f"{one['teacher']} on {one['task']}"


def _summary(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for (task, student), runs in _groups(summaries).items():
        mine = [*runs.values()]
        teachers = ", ".join(one["teacher"] for one in mine)
        cells = [line for one in mine for line in one["lines"]["agreement"].values()]
        gains = [100 * (accuracy - drawn) for _, accuracy, drawn, _ in cells]
        kept, bills = zip(*(one["kept"] for one in mine), strict=True)
        lines.append(
            f"{task}, {mine[0]['rows']} rows, {student} after {teachers}: at bills from 10% to "
            f"90%, agreement is {min(gains):+.1f} to {max(gains):+.1f} points over a random "
            f"router. If a threshold keeps {KEPT:.0%} of the teacher's accuracy on the rows that "
            f"chose it, it keeps {_range(kept)} on other rows, at {_range(bills)} of the bill."
            f"{_said_of_prefixes(mine)}"
        )
    return lines


def _said_of_prefixes(runs: Sequence[Mapping[str, Any]]) -> str:
    begun = [figures for one in runs for figures in one["prefixes"].values()]
    if not begun:
        return ""
    gains = [100 * (accuracy - drawn) for _, accuracy, drawn, *_ in begun]
    bills = [bill for bill, *_ in begun]
    points = " to ".join(dict.fromkeys(f"{end(gains):+.1f}" for end in (min, max)))
    return (
        f" The teacher's first tokens, continued by the student, are {points} points over that "
        f"router, at {_range(bills)} of the bill."
    )


def _reached(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Say which students have the wanted points at every bill, after every teacher."""
    found = []
    for (task, student), runs in _groups(summaries).items():
        cells = [
            (accuracy - drawn, float(budget))
            for one in runs.values()
            for budget, (_, accuracy, drawn, _) in one["lines"]["agreement"].items()
        ]
        if all(100 * gain >= WANTED for gain, budget in cells if 0.2 <= budget <= 0.8):
            found.append(f"{student} on {task}")
    return f"Agreement reaches that with {' and '.join(found) or 'none'},"


def _beside_routers(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    student, teacher = (one["right"][name] for name in ("student", "teacher"))
    drawn = (KEPT * teacher - student) / (teacher - student)
    kept, bill = one["kept"]
    return (
        f"\n\nOur student qwen15 is weaker: it is right in {student:.1%}. Drawing lots between it "
        f"and GPT-4 would keep {KEPT:.0%}\nat {drawn:.0%} of the bill. If a threshold of agreement "
        f"keeps {KEPT:.0%} on the rows that chose it, it keeps {kept:.0%} on other\nrows, at "
        f"{bill:.0%} of the bill."
    )


def _range(shares: Sequence[float]) -> str:
    return " to ".join(sorted({f"{share:.0%}" for share in (min(shares), max(shares))}))


def _table(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    lines = []
    for one in runs.values():
        right = one["right"]
        prompt, completion = one["teacher_tokens"]
        for way, budgets in one["lines"].items():
            lines.append(
                {
                    "teacher": one["teacher"],
                    "alone": f"{right['teacher']:.1%}",
                    "tokens": f"{prompt:.0f} + {completion:.0f}",
                    "$ per 1,000": f"{one['dollars_per_thousand']:.4f}",
                    "student": f"{right['student']:.1%}, vote {right['vote']:.1%}",
                    "gate": way,
                    **{f"within {float(b):.0%}": _cell(budgets[b]) for b in SHOWN},
                }
            )
    rows = next(iter(runs.values()))["rows"]
    prices = next(iter(runs.values()))["prices"]
    return Table.of(
        lines,
        title=f"Accuracy on unseen rows within a share of the bill (over router), {rows} rows",
        notes=[
            "tokens: prompt + completion of an answer of the teacher",
            "vote: the most common of the student's five answers",
            f"price: {prices['input_mtok']} and {prices['output_mtok']} dollars for a million "
            "prompt and completion tokens",
        ],
    )


def _prefix_table(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    lines = [
        {
            "teacher": one["teacher"],
            "tokens": tokens,
            "right at the share of the bill": _cell(figures),
            "tokens of the student (alone)": f"{figures[3]:.0f} ({figures[4]:.0f})",
        }
        for one in runs.values()
        for tokens, figures in one["prefixes"].items()
    ]
    title = "The teacher's first tokens, continued by the student (over router), all rows"
    return Table.of(lines, title=title) if lines else Table(title=title, head=[], rows=[])


def _dearer_table(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    lines = []
    for one in runs.values():
        dearer = one["dearer"]
        kept, bill = dearer["kept"]
        budgets = dearer["lines"]["agreement"]
        lines.append(
            {
                "teacher": one["teacher"],
                "$ per 1,000": f"{dearer['dollars_per_thousand']:.4f}",
                **{f"within {float(b):.0%}": _cell(budgets[b]) for b in SHOWN},
                f"keeps {KEPT:.0%}": f"{kept:.0%} at {bill:.0%}",
            }
        )
    return Table.of(lines, title="Agreement as gpt-5-mini is billed (over router), unseen rows")


def _cell(line: Sequence[float]) -> str:
    bill, accuracy, drawn, *_ = line
    return f"{accuracy:.1%} at {bill:.0%} ({100 * (accuracy - drawn):+.1f})"


def _agreement_table(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    one = next(iter(runs.values()))
    return Table(
        title="The student's answers that agree, and how many of them are right",
        head=["of five", "rows", "right"],
        rows=[
            [str(number), str(rows), f"{right / rows:.0%}" if rows else "-"]
            for number, (rows, right) in enumerate(one["agreeing"], 1)
        ],
    )


def _chart(one: Mapping[str, Any]) -> Any:
    figure, [axes] = new_figure()
    ends = [(0.0, one["right"]["student"]), (1.0, one["right"]["teacher"])]
    agreement = one["lines"]["agreement"].values()
    drawn = {
        **{
            name: [(bill, accuracy) for bill, accuracy, *_ in budgets.values()]
            for name, budgets in one["lines"].items()
        },
        "random router": ends,
        "oracle": sorted((bill, best) for bill, _, _, best in agreement),
    }
    for name, points in drawn.items():
        marker, colour, style = _LOOKS[name]
        axes.plot(*zip(*points, strict=True), marker=marker, color=colour, ls=style, label=name)
    axes.set(xlabel="share of the teacher's bill", ylabel="accuracy, unseen rows", xlim=(0, 1))
    axes.set_title(f"{_title(one)}, {one['rows']} rows", loc="left")
    percent_axis(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure
