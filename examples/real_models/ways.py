r"""Make docs/measurements/hints-and-verdicts.md: hints and verdicts of a live teacher, measured.

    python examples/real_models/ways.py --teacher FOLDER --student FOLDER --rows 60 \
        --gsm8k test.jsonl --csqa dev.jsonl

Ended at any moment, the same command goes on where it was. The runs stay in runs/ways.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results import PLAIN, PRICE, SHORT_CHOICE

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HintPrompt,
    HuggingFaceStudent,
    InstructTeacher,
    WithoutExemplars,
)
from langchain_gkt.evaluation import PolicySweep, Task, compare, load_task, sweep_policies
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.prompts.hints import HintFormat
from langchain_gkt.reporting.table import Table

DOCS = Path(__file__).parents[2] / "docs"
BEGINNING = "beginning"
LENGTHS = {"gsm8k": [60], "csqa": [10, 30]}
FORMATS: dict[str, tuple[HintFormat, ...]] = {
    "gsm8k": ("equations", "draft", "short"),
    "csqa": ("option", "draft", "short"),
}
DOUBT = "A weak student wrote the answer above, and it is often wrong. "
LETTER = "Which option is right? Reply with its letter and nothing else."
VERDICTS = {
    "gsm8k": {
        "ready-made": "steps",
        "first wrong step": (
            "Which step above is the first wrong one? Reply with its number, a colon and that step "
            "put right. If no step is wrong, reply with OK."
        ),
        "doubt": (
            f"{DOUBT}Calculate each step again. Reply with the number of the first wrong step, a "
            "colon and that step put right, such as 3: 12 * 2 = 24. Reply with OK only if you find "
            "no mistake."
        ),
    },
    "csqa": {"ready-made": "option", "letter": LETTER, "doubt": DOUBT + LETTER},
}
SHORT = {"gsm8k": PLAIN, "csqa": SHORT_CHOICE}

PAGE = """# Hints and verdicts

{summary}

Measured on {date} by `examples/real_models/ways.py`: {teacher} is the teacher and {student} the
student, both live, in {dtype}. The teacher reads no worked examples, the student reads all. Prices
are those of gpt-4o-mini.

{tables}

- *at most*: the limit of the teacher's tokens. *beginning*: the first tokens of the teacher's
  answer. *equations*, *draft*, *short*, *option*: the formats of `HintPrompt`, as far as we tried
  them. *verified*: the student drafts, and the teacher accepts the draft or corrects it. The
  teacher writes little, but it reads the question and the draft.
- *wordings*: the instructions of `VERDICTS` in the script, on rows that no other table has. The
  most accurate one was used for *verified*.
- *option* is the teacher's whole answer in two tokens. If you ask the teacher alone for the letter,
  it costs the same. The student adds the explanation.
- *over router*: points of accuracy over a random router between student and teacher at the same
  price.
- Later, on 200 other rows of gsm8k (137 to 336), vLLM ran both models in bfloat16. *equations* had
  38.5% right (95%: 32% to 45%) at 55% of the bill, 4.2 points over the router. *beginning* had
  31.0% at 58%, 4.1 points under it. Alone, the student had 22.5% and the teacher 44.0%. So figures
  of 40 rows are rough.
"""


def wordings(name: str, task: Task, chain: GuidedKnowledgeTransferChain, out: Path) -> Table:
    """Have drafts verified by each instruction for a verdict.

    Args:
        name: The task's name.
        task: Questions that are not reported.
        chain: The pair.
        out: The folder of the runs.

    Returns:
        One line for each wording, the most accurate first, and the cheaper of two equals.
    """
    lines = []
    for wording in VERDICTS[name]:
        one = _verified(name, wording, task, chain, out / f"{name}-wordings" / wording)
        written = one.teacher.completion_tokens / one.rows
        lines.append((-one.accuracy, one.cost or 0, wording, written))
    shown = [
        {
            "wording": wording,
            "right": f"{-wrong:.1%}",
            "tokens written": f"{written:.0f}",
            "$ per 1,000": f"{float(cost) * 1000 / len(task.rows):.4f}",
        }
        for wrong, cost, wording, written in sorted(lines, key=lambda line: line[:2])
    ]
    return Table.of(shown, title=f"{name}, wordings of the verdict, {len(task.rows)} other rows")


def _verified(
    name: str, wording: str, task: Task, chain: GuidedKnowledgeTransferChain, out: Path
) -> Summary:
    policy = GuidancePolicy(
        teacher_prompt=WithoutExemplars(),
        verdict=VERDICTS[name][wording],
        tokens=max(LENGTHS[name]),
    )
    found = compare(
        chain.model_copy(update={"guidance": policy}),
        task,
        modes=["verified"],
        teacher_price=PRICE,
        out=out,
        concurrency=16,
    )
    return found.summaries["verified"]


def measure(
    name: str, wording: str, task: Task, chain: GuidedKnowledgeTransferChain, out: Path
) -> Table:
    """Sweep over the formats of a hint, and have drafts verified.

    Args:
        name: The task's name.
        wording: The instruction for verdicts, by its name in `VERDICTS`.
        task: The questions.
        chain: The pair.
        out: The folder of the runs.

    Returns:
        One line for each way, and the two models alone.
    """
    whole = WithoutExemplars() | InstructTeacher(text=SHORT[name], style="none")
    policies = {BEGINNING: GuidancePolicy(teacher_prompt=whole)}
    for form in FORMATS[name]:
        prompt = WithoutExemplars() | HintPrompt(format=form)
        policies[form] = GuidancePolicy(teacher_prompt=prompt)
    found = sweep_policies(
        chain,
        task,
        policies,
        lengths=LENGTHS[name],
        teacher_price=PRICE,
        out=out / f"{name}-hints",
        concurrency=16,
    )
    lines = list(_lines(found))
    one = _verified(name, wording, task, chain, out / f"{name}-verified" / wording)
    cost = float(one.cost or 0) * 1000 / one.rows
    lines.append(["verified", "", one.accuracy, cost, one.teacher.completion_tokens / one.rows])
    return _table(name, len(found.sweeps[BEGINNING].outcomes.rows), lines)


def _lines(found: PolicySweep) -> Iterator[list[Any]]:
    """Yield way, guidance tokens, accuracy, dollars per 1,000 and the teacher's tokens written."""
    first = found.sweeps[BEGINNING]
    for name, alone in (("student alone", first.student), ("teacher alone", first.teacher)):
        cost = float(alone.cost or 0) * 1000 / alone.rows
        yield [name, "", alone.accuracy, cost, alone.teacher.completion_tokens / alone.rows]
    for way, one in found.sweeps.items():
        for length, summary in one.by_length.items():
            if length in (0, TEACHER_ALONE):
                continue
            cost = float(summary.cost or 0) * 1000 / summary.rows
            written = summary.teacher.completion_tokens / summary.rows
            yield [way, str(length), summary.accuracy, cost, written]


def _table(name: str, rows: int, lines: list[list[Any]]) -> Table:
    (_, _, low, none, _), (_, _, high, bill, _) = lines[:2]
    shown = []
    for way, tokens, accuracy, cost, written in lines:
        drawn = low + min(1.0, (cost - none) / (bill - none)) * (high - low)
        shown.append(
            {
                "way": way,
                "at most": tokens,
                "right": f"{accuracy:.1%}",
                "tokens written": f"{written:.0f}",
                "of the bill": f"{cost / bill:.0%}",
                "over router": f"{100 * (accuracy - drawn):+.1f}",
            }
        )
    return Table.of(shown, title=f"{name}, {rows} rows")


def _summary(table: Table) -> str:
    ways = [line for line in table.rows if not line[0].endswith("alone")]
    best = max(ways, key=lambda line: float(line[-1]))
    beaten = sum(float(line[-1]) > 0 for line in ways)
    limit = f", at most {best[1]} tokens" if best[1] else ""
    alone, checked = (
        next(line for line in table.rows if line[0] == way) for way in ("student alone", "verified")
    )
    return (
        f"- {table.title}: {beaten} of {len(ways)} ways beat a random router. The best is "
        f"*{best[0]}*{limit}: {best[2]} right at {best[4]} of the bill, {best[5]} points "
        "over the router.\n"
        f"- {table.title.partition(',')[0]}: the verdict (*verified*) took {checked[4]} of the "
        f"bill, and {checked[2]} were right (student alone {alone[2]})."
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, type=Path, help="a model's folder")
    parser.add_argument("--student", required=True, type=Path, help="a model's folder")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gsm8k", help="the publisher's file")
    parser.add_argument("--csqa", help="the publisher's file")
    parser.add_argument("--rows", type=int, default=60, help="the last rows of each file")
    parser.add_argument("--other-rows", type=int, default=24, help="rows that choose a wording")
    parser.add_argument("--out", type=Path, default=Path("runs/ways"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    settings: dict[str, Any] = {"dtype": args.dtype, "threads": args.threads, "temperature": 0}
    teacher = HuggingFaceStudent(model=str(args.teacher), **settings)
    student = HuggingFaceStudent(model=str(args.student), **settings)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, temperature=0)
    tables, worded = [], []
    for name in LENGTHS:
        if (file := getattr(args, name)) is None:
            continue
        task = load_task(name, data=file)
        other, rows = task.rows[: -args.rows][-args.other_rows :], task.rows[-args.rows :]
        worded.append(wordings(name, replace(task, rows=other), chain, args.out))
        best = worded[-1].rows[0][0]
        tables.append(measure(name, best, replace(task, rows=rows), chain, args.out))
    page = PAGE.format(
        summary="\n".join(map(_summary, tables)),
        date=datetime.now(UTC).date(),
        teacher=args.teacher.name,
        student=args.student.name,
        dtype=args.dtype,
        tables="\n\n".join(table.markdown() for table in [*tables, *worded]),
    )
    (args.docs / "measurements" / "hints-and-verdicts.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
