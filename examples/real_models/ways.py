r"""Make docs/measurements/hints-and-verdicts.md: hints and verdicts of a live teacher, measured.

    python examples/real_models/ways.py --teacher FOLDER --student FOLDER --rows 60 \
        --gsm8k test.jsonl --csqa dev.jsonl

With --teacher-url and --student-url, vLLM answers at these addresses, and the folders are those of
the tokenizers. Ended at any moment, the same command goes on where it was. The runs stay in
runs/ways.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from recorded_figures import SPLITS, splits
from results import PLAIN, PRICE, SHORT_CHOICE

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HintPrompt,
    HuggingFaceStudent,
    InstructTeacher,
    WithoutExemplars,
)
from langchain_gkt.evaluation import Task, compare, load_task, sweep_policies
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.statistics import wilson
from langchain_gkt.prompts.hints import HintFormat
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas

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
student, both live, in {dtype}. {engine}The teacher reads no worked examples,
the student reads all. Prices are those of gpt-4o-mini.

{tables}

- *at most*: the limit of the teacher's tokens. *beginning*: the first tokens of the teacher's
  answer. *equations*, *draft*, *short*, *option*: the formats of `HintPrompt`, as far as we tried
  them. *verified*: the student drafts, and the teacher accepts the draft or corrects it. The
  teacher writes little, but it reads the question and the draft. Its instructions are the
  `VERDICTS` of the script.
- *teacher alone*: its whole answer to the prompt of *beginning*. The lines with another name are
  its whole answers to that prompt.
- *chosen*: half of the rows chooses the way with the most points over the router, and the other
  half tests it. The figures are means over {splits} splits and both directions.
- *over router*: points of accuracy over a random router between student and teacher at the same
  price.
"""
TEACHER = "teacher alone"
STUDENT = "student alone"


@dataclass(frozen=True)
class Way:
    """One way to answer, measured on the rows of a task.

    Attributes:
        name: What the page calls it.
        limit: The limit of the teacher's tokens. Empty if there is none.
        answers: By row: ``right``, ``cost``, and ``written``, the teacher's tokens.
    """

    name: str
    limit: str
    answers: pandas.DataFrame

    @classmethod
    def of(cls, name: str, limit: str, answers: pandas.DataFrame) -> Way:
        """Take what is needed of an `answer_table`."""
        table = answers.set_index("row")[["right", "cost", "teacher_completion_tokens"]]
        table.columns = ["right", "cost", "written"]
        return cls(name, limit, table.astype(float))

    @property
    def kind(self) -> str:
        """The ways that it is chosen among."""
        kind = self.name.partition(",")[0]
        return kind if kind in (STUDENT, TEACHER, "verified") else "a hint"

    def on(self, rows: Sequence[str]) -> Mapping[str, float]:
        """Return the means of some rows."""
        means = self.answers.loc[list(rows)].mean()
        return {str(name): float(value) for name, value in means.items()}


def measure(
    name: str, task: Task, chain: GuidedKnowledgeTransferChain, out: Path, concurrency: int = 16
) -> list[Way]:
    """Sweep over the formats of a hint, and have drafts verified by each instruction.

    Args:
        name: The task's name.
        task: The questions.
        chain: The pair.
        out: The folder of the runs.
        concurrency: How many rows are answered at once.

    Returns:
        Every way, the student alone and the teacher alone first.
    """
    whole = WithoutExemplars() | InstructTeacher(text=SHORT[name], style="none")
    policies = {BEGINNING: GuidancePolicy(teacher_prompt=whole)}
    for form in FORMATS[name]:
        prompt = WithoutExemplars() | HintPrompt(format=form)
        policies[form] = GuidancePolicy(teacher_prompt=prompt)
    settings: dict[str, Any] = {"teacher_price": PRICE, "concurrency": concurrency}
    lengths = LENGTHS[name]
    found = sweep_policies(
        chain, task, policies, lengths=lengths, out=out / f"{name}-hints", **settings
    )
    ways, alone = [], []
    for hint, sweep in found.sweeps.items():
        answers: dict[Any, Any] = dict(iter(sweep.complete.groupby("way", sort=False)))
        if hint == BEGINNING:
            alone.append(Way.of(STUDENT, "", answers[0]))
        named = TEACHER if hint == BEGINNING else f"{TEACHER}, {hint}"
        alone.append(Way.of(named, "", answers[TEACHER_ALONE]))
        ways += [Way.of(hint, str(length), answers[length]) for length in lengths]
    for wording, verdict in VERDICTS[name].items():
        policy = GuidancePolicy(
            teacher_prompt=WithoutExemplars(), verdict=verdict, tokens=max(lengths)
        )
        checked = compare(
            chain.model_copy(update={"guidance": policy}),
            task,
            modes=["verified"],
            out=out / f"{name}-verified" / wording,
            **settings,
        )
        ways.append(Way.of(f"verified, {wording}", "", checked.complete))
    return [*alone, *ways]


def over_router(way: Way, ways: Sequence[Way], rows: Sequence[str]) -> float:
    """Return a way's points over a random router between student and teacher at the same price."""
    mine, low, high = (one.on(rows) for one in (way, *ways[:2]))
    share = min(1.0, (mine["cost"] - low["cost"]) / (high["cost"] - low["cost"]))
    drawn = low["right"] + share * (high["right"] - low["right"])
    return 100 * (mine["right"] - drawn)


def common_rows(ways: Iterable[Way]) -> list[str]:
    """Return the rows that are answered in every way."""
    first, *others = (way.answers.index for way in ways)
    return [row for row in first if all(row in index for index in others)]


def ways_table(title: str, ways: Sequence[Way]) -> Table:
    """Return one line for each way, on all rows."""
    rows = common_rows(ways)
    bill = ways[1].on(rows)["cost"]
    lines = []
    for way in ways:
        mine = way.on(rows)
        low, high = wilson(round(mine["right"] * len(rows)), len(rows))
        lines.append(
            {
                "way": way.name,
                "at most": way.limit,
                "right (95%)": f"{mine['right']:.1%} ({100 * low:.0f}-{100 * high:.0f})",
                "tokens written": f"{mine['written']:.0f}",
                "of the bill": f"{mine['cost'] / bill:.0%}",
                "over router": f"{over_router(way, ways, rows):+.1f}",
            }
        )
    return Table.of(lines, title=f"{title}, {len(rows)} rows")


def choice_table(title: str, ways: Sequence[Way]) -> Table:
    """Return what the way gives on unseen rows that was the best on seen ones, for each kind."""
    rows, lines = common_rows(ways), []
    groups = {"a hint": "a hint", "verified": "a verdict", TEACHER: "another prompt, teacher alone"}
    for kind, words in groups.items():
        candidates = [way for way in ways[2:] if way.kind == kind]
        chosen, tested = Counter[str](), []
        for seen, unseen in splits(rows):
            best = max(candidates, key=lambda way: over_router(way, ways, [rows[i] for i in seen]))
            others = [rows[i] for i in unseen]
            mine, whole = best.on(others), ways[1].on(others)
            chosen[f"{best.name} {best.limit}".strip()] += 1
            gain = over_router(best, ways, others)
            tested.append((mine["right"], mine["cost"] / whole["cost"], gain))
        right, bill, gain = (mean(values) for values in zip(*tested, strict=True))
        named, times = chosen.most_common(1)[0]
        lines.append(
            {
                "chosen": words,
                "most often": f"{named} ({times} of {len(tested)})",
                "right": f"{right:.1%}",
                "of the bill": f"{bill:.0%}",
                "over router": f"{gain:+.1f}",
            }
        )
    return Table.of(lines, title=f"{title}, chosen on one half, tested on the other")


def _summary(every: Table, chosen: Table) -> str:
    ways = [line for line in every.rows if "alone" not in line[0]]
    beaten = sum(float(line[-1]) > 0 for line in ways)
    hint, verdict, alone = chosen.rows
    return (
        f"- {every.title}: {beaten} of {len(ways)} ways beat a random router. The best hint on "
        f"seen rows has {hint[2]} right on unseen ones, at {hint[3]} of the bill: {hint[4]} points "
        f"over the router. The best verdict has {verdict[2]} at {verdict[3]}: "
        f"{verdict[4]} points. The teacher alone with another prompt has {alone[2]} at {alone[3]}: "
        f"{alone[4]} points."
    )


def _model(folder: Path, url: str | None, args: argparse.Namespace) -> HuggingFaceStudent:
    if url is None:
        return HuggingFaceStudent(
            model=str(folder), dtype=args.dtype, threads=args.threads, temperature=0
        )
    return HuggingFaceStudent(
        model=str(folder),
        backend="vllm",
        base_url=url,
        max_batch_size=args.concurrency,
        request_timeout=1800,
        temperature=0,
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, type=Path, help="a model's folder")
    parser.add_argument("--student", required=True, type=Path, help="a model's folder")
    parser.add_argument("--teacher-url", help="a vLLM server that has the teacher")
    parser.add_argument("--student-url", help="a vLLM server that has the student")
    parser.add_argument("--dtype", default="int8", help="of a server: what it was started with")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--gsm8k", help="the publisher's file")
    parser.add_argument("--csqa", help="the publisher's file")
    parser.add_argument("--rows", type=int, default=60, help="the first rows of each file")
    parser.add_argument("--out", type=Path, default=Path("runs/ways"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    chain = GuidedKnowledgeTransferChain(
        teacher=_model(args.teacher, args.teacher_url, args),
        student=_model(args.student, args.student_url, args),
        temperature=0,
    )
    tables = []
    for name in LENGTHS:
        if (file := getattr(args, name)) is None:
            continue
        task = load_task(name, data=file, rows=args.rows)
        ways = measure(name, task, chain, args.out, args.concurrency)
        tables.append((ways_table(name, ways), choice_table(name, ways)))
    page = PAGE.format(
        summary="\n".join(_summary(*pair) for pair in tables),
        date=datetime.now(UTC).date(),
        teacher=args.teacher.name,
        student=args.student.name,
        dtype=args.dtype,
        engine="vLLM ran both. " if args.teacher_url and args.student_url else "",
        tables="\n\n".join(table.markdown() for pair in tables for table in pair),
        splits=SPLITS,
    )
    (args.docs / "measurements" / "hints-and-verdicts.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
