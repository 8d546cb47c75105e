r"""Make docs/measurements/real-models.md: what real pairs give on public benchmarks.

    python examples/real_models/results.py --teacher FOLDER --student FOLDER \
        --gsm8k test.jsonl --csqa dev.jsonl

Ended at any moment, the same command goes on where it was. The runs stay in runs/results-real, and
their figures are kept in examples/real_models/summaries, from which the page is written.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import page
import second_request
import summaries

from langchain_gkt import (
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    InstructTeacher,
    WithoutExemplars,
)
from langchain_gkt.costs import Price
from langchain_gkt.evaluation import PolicySweep, Sweep, Task, load_run, load_task, sweep_policies

DOCS = Path(__file__).parents[2] / "docs"
SUMMARIES = Path(__file__).parent / "summaries"
ENGINE = "engine.txt"  # in a run's folder: what computed the student's answers
LENGTHS = {"gsm8k": [10, 20, 40, 60, 100, 200], "csqa": [5, 10, 20, 30], "aqua": [10, 20, 40, 80]}
PRICE = Price(input_mtok="0.15", output_mtok="0.60")
SHORT_CHOICE = "Think it through in one or two short sentences, then end with: The answer is (X)."
PLAIN = (
    "Solve it in a few plain sentences, each with one calculation, such as: He has 3 * 4 = 12 "
    "apples. No LaTeX, no lists, no headings. End with: The answer is 12."
)
BRIEF = "Answer in the same short style."
_BRIEF = WithoutExemplars(keep=2, shortest=True) | InstructTeacher(text=BRIEF, style="none")
# Told to think step by step without an example, the teacher writes long LaTeX. Two examples of
# eight keep its answers short.
TEACHER_PROMPTS = {
    "gsm8k": {
        "short": WithoutExemplars(keep=2),
        "brief": _BRIEF,
        "plain": WithoutExemplars() | InstructTeacher(text=PLAIN, style="none"),
    },
    "csqa": {"short": WithoutExemplars() | InstructTeacher(text=SHORT_CHOICE, style="none")},
    "aqua": {"short": WithoutExemplars(keep=1), "brief": _BRIEF},
}


def run(args: argparse.Namespace) -> None:
    """Sweep each task that has a file of questions, with the whole prompt and a short one.

    Args:
        args: The command line.
    """
    models = {
        name: HuggingFaceStudent(model=str(path), dtype=args.dtype, temperature=0)
        for name, path in (("teacher", args.teacher), ("student", args.student))
    }
    for name, lengths in LENGTHS.items():
        if (data := getattr(args, name)) is None:
            continue
        kind = name if args.shots is None else f"{name}-{args.shots}-shot"
        task = load_task(name, data=str(data), rows=args.rows, shots=args.shots)
        chain = GuidedKnowledgeTransferChain(**models, temperature=0)
        # Without examples, only CommonsenseQA's prompt is another than the whole one.
        prompts = {} if args.shots == 0 and name != "csqa" else TEACHER_PROMPTS[name]
        policies: dict[str, GuidancePolicy | None] = {"whole": None}
        policies |= {n: GuidancePolicy(teacher_prompt=prompt) for n, prompt in prompts.items()}
        if args.cuts and (short := policies.get("short")):
            policies["short + whole steps"] = replace(short, cut="step")
            policies["short + 8 tokens or none"] = replace(short, min_tokens=8)
        out = args.runs / f"{kind}-{args.teacher.name}-{args.student.name}"
        found = sweep_policies(
            chain,
            task,
            policies,
            lengths=args.lengths or lengths,
            teacher_price=PRICE,
            out=out,
            concurrency=16,  # rows that are decoded together
            teacher_from=args.teacher_from,
        )
        found.save()
        if args.again:
            _try_again(args, chain, task, found, out)
        engine, _, _ = models["student"].backend_reason.partition(": ")
        (out / ENGINE).write_text(f"{engine}\n", encoding="utf-8")
        print(found)
    for model in models.values():
        model.close()


def _try_again(
    args: argparse.Namespace,
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    found: PolicySweep,
    out: Path,
) -> None:
    policy = "short" if "short" in found.sweeps else "whole"
    # The engine that is quickest need not tell entropies.
    probe = HuggingFaceStudent(model=str(args.probe or args.student))
    one, whole, ways = found.sweeps[policy], found.sweeps["whole"].outcomes, list[dict[str, Any]]()
    for tokens in args.again:
        kept = out / f"again-{tokens}"
        ways += second_request.try_again(one, whole, tokens, chain, task, PRICE, probe, kept)
    probe.close()
    if ways:
        text = json.dumps({"policy": policy, "ways": ways})
        (out / second_request.FILE).write_text(text, encoding="utf-8")


def condense(runs: Path, kept: Path) -> None:
    """Write the figures of all runs of several policies.

    Args:
        runs: The folder they are in. It need not exist.
        kept: Where to.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path.parent for path in runs.glob("*/manifest.json")):
        try:
            found = load_run(str(folder))
        except ValueError as error:  # just begun
            print(f"{folder.name} is left out: {error}")
            continue
        if isinstance(found, PolicySweep):
            # A policy that has no guided answers yet must not leave the others without rows.
            done = [n for n, one in found.sweeps.items() if len(one.by_length) > 1]
            if not done:
                continue
            if len(done) < len(found.sweeps):
                found = replace(found, sweeps={n: _sweep(folder / n) for n in done})
            engine = folder / ENGINE
            told = engine.read_text(encoding="utf-8").strip() if engine.exists() else None
            again = folder / second_request.FILE
            further = {"again": json.loads(again.read_text("utf-8"))} if again.exists() else {}
            condensed = {"engine": told, **summaries.condense(found), **further}
            text = json.dumps(condensed, indent=1)
            (kept / f"{folder.name}.json").write_text(text + "\n", encoding="utf-8")


def _sweep(folder: Path) -> Sweep:
    found = load_run(str(folder))
    assert isinstance(found, Sweep)
    return found


def main() -> None:
    """Read the command line, run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, help="folder of the big model")
    parser.add_argument("--student", type=Path, help="folder of the small model")
    for name in LENGTHS:
        parser.add_argument(
            f"--{name}", type=Path, help="the questions, as their publisher has them"
        )
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--shots", type=int, help="worked examples; default: the task's")
    parser.add_argument("--lengths", type=int, nargs="+", help="guidance tokens of all tasks")
    parser.add_argument(
        "--cuts", action="store_true", help="compare other cuts of the short prompt's guidance too"
    )
    parser.add_argument("--dtype", default="int8", help="of both models")
    parser.add_argument(
        "--again",
        type=int,
        nargs="+",
        default=[],
        help="guidance tokens after which a second request in mid-answer is tried, too",
    )
    parser.add_argument(
        "--probe", type=Path, help="folder of the student for torch, if its engine tells no entropy"
    )
    parser.add_argument(
        "--teacher-from", type=Path, help="folder of a run with the same teacher and one task"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/results-real"))
    parser.add_argument("--summaries", type=Path, default=SUMMARIES)
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    if args.teacher and args.student:
        run(args)
    elif args.teacher or args.student:
        parser.error("give both --teacher and --student, or neither to write the page again")
    condense(args.runs, args.summaries)
    files = sorted(args.summaries.glob("*.json"))
    page.write(
        {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}, args.docs
    )


if __name__ == "__main__":
    main()
