"""Make docs/measurements/toy-models.md: the embedded pair's whole table, with pictures.

    python examples/demo_models/results.py

Ended at any moment, the same command goes on where it was. The runs stay in runs/results.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.costs import scenarios_of
from langchain_gkt.demo.pair import PRICE, STUDENT, TEACHER, demo_teacher
from langchain_gkt.evaluation import (
    Choice,
    Comparison,
    ScenarioReport,
    Sweep,
    compare,
    load_task,
    sweep,
)

DOCS = Path(__file__).parents[2] / "docs"
LENGTHS = (4, 8, 10, 12, 14, 16, 17, 18, 20, 25, 30, 40)
PICTURES = {
    "accuracy": "Accuracy by guidance length",
    "frontier": "Accuracy for its cost",
    "modes": "Accuracy and price of the three modes",
    "time": "Where the time goes",
}

PAGE = """# The embedded pair

These are toys. The two models that come with the package have {weights} weights, and know one
synthetic family of word problems. They show the *mechanism*. `langchain-gkt sweep` shows what
guidance does with your models on your questions: see [Evaluate](../evaluate.md). The paper's own
figures are at the end, apart.

`{command}` makes this page, from problems of a seed that we did not
look at while designing ({seed}). Both models answer greedily. The teacher is an HTTP server on the
same machine, billed as if it were `{price}`. The machine had other work, too: compare
the seconds with each other only.

## How much guidance

The teacher answered each question once. The sweep cut every shorter guidance from that answer.

{lengths}

![Accuracy by guidance length](../images/accuracy.svg)

## How much is enough

`choose()` takes the cheapest length whose accuracy is at most two points below the best one's, on
half of the rows. The other half shows the result.

{choice}

{any_way}

## What the teacher alone costs at the least

This table bills the same answers in other ways. Prompts of this length are too short for a
provider's cache. A batch halves every bill, with a student or without.

{scenarios}

## Does the student need help at all?

In the paper every question gets guidance. A policy can ask the teacher only where the student is
not sure of the first tokens of its own answer, such as `GuidancePolicy(ask=0.98, probe_tokens=16)`.

{frontier}

{prices}

![Accuracy for its cost](../images/frontier.svg)

{verdict}

## The three modes side by side

The guided answers use the policy of fixed length chosen above.

{modes}

![Accuracy and price of the three modes](../images/modes.svg)

![Where the time goes](../images/time.svg)

Both models and the server share two cores here, so these times say little about a
teacher in the cloud.

## What the paper reports

These figures are from Yao, Li & Zhao, "GKT", Findings of ACL 2024. We did *not* measure them, and
they are not comparable with the toys above:

| | accuracy | speed |
| --- | --- | --- |
| GSM8K, guided against the student alone | up to +14.18 points | |
| GSM8K, guided against the teacher alone | | up to 10.72x |
| CommonsenseQA, guided against the student alone | up to +14.00 points | |
| CommonsenseQA, guided against the teacher alone | | up to 7.73x |
| ChatGPT guiding Llama2-70B, against ChatGPT alone | 95.00% of its accuracy at 52% of its cost | |
"""


def verdict(found: Sweep, choices: dict[str, Choice]) -> str:
    """Say whether asking only where it helps beats a fixed length here."""
    fixed, gated = choices["fixed length"], choices["gated length"]
    prices = [
        (found.price_of(goal, "fixed length"), found.price_of(goal, "both"), goal)
        for goal in found.goals()
    ]
    ratios = {goal: both / alone for alone, both, goal in prices if alone and both}
    cheaper = [goal for goal, ratio in ratios.items() if ratio < 1]
    listed = ", ".join(f"{ratio:.0%} at {goal:.1%}" for goal, ratio in ratios.items())
    loss = fixed.unseen.accuracy - gated.unseen.accuracy
    better = loss <= 0 and gated.unseen.cost < fixed.unseen.cost
    return (
        "**Is it better than a fixed length?** "
        + ("Yes" if better else "Not shown")
        + f". On rows that the choice above did not see, the gated length costs "
        f"{gated.unseen.cost / fixed.unseen.cost:.0%} of the fixed one and is right on "
        f"{gated.unseen.accuracy:.1%} against {fixed.unseen.accuracy:.1%}. If you need less "
        f"accuracy, *both* is far cheaper. For the same accuracy it costs this share of a fixed "
        f"length: {listed}. It is cheaper at {len(cheaper)} of {len(found.goals())} accuracies. We "
        "picked these points by looking at all rows, so they are a little too good. *Gated*, a "
        "cascade, lets the teacher answer whole where the student is unsure. It is the dearest of "
        "the three at high accuracies.\n\n"
        "The confidence in the first token is free while prefilling, but says nothing on this "
        "task: every answer begins with the same word. The student has to begin an answer before "
        "it shows whether it knows it. So it decodes as many steps as you probe tokens, before the "
        "chain asks the teacher."
    )


def main() -> None:
    """Read the command line, run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20271)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the other core is the server's
    task = load_task("word_problems", rows=args.rows, seed=args.seed)
    with demo_teacher() as teacher:
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=STUDENT)
        found = sweep(
            chain,
            task,
            lengths=LENGTHS,
            teacher_price=PRICE,
            teacher_tokenizer=AutoTokenizer.from_pretrained(TEACHER),
            check_lengths=(8, 14, 18),
            check_rows=100,
            out=args.runs / "sweep",
        )
        choices = found.choices()
        guided = GuidedKnowledgeTransferChain(
            teacher=teacher, student=STUDENT, guidance=choices["fixed length"].policy
        )
        modes = compare(guided, task, teacher_price=PRICE, out=args.runs / "compare", concurrency=2)
        chain.student.close()
        guided.student.close()
    write(args.docs, found, choices, modes, args.seed)


def write(
    docs: Path, found: Sweep, choices: dict[str, Choice], modes: Comparison, seed: int
) -> None:
    """Write the page and its pictures."""
    lengths, frontier, prices, choice, any_way, *_ = found.tables()
    results = docs / "measurements" / "toy-models.md"
    page = PAGE.format(
        weights="1.4 M and 0.4 M",
        command="python examples/demo_models/results.py",
        seed=seed,
        price=PRICE,
        lengths=lengths.markdown(),
        choice=choice.markdown(),
        any_way=any_way.markdown(),
        scenarios=ScenarioReport.of(found, scenarios_of(PRICE, cached_prefix=False))
        .table()
        .markdown(),
        frontier=frontier.markdown(),
        prices=prices.markdown(),
        verdict=verdict(found, choices),
        modes=modes.markdown(),
    )
    for folder in (docs / "images", results.parent):
        folder.mkdir(parents=True, exist_ok=True)
    results.write_text(page, encoding="utf-8")
    for run in (found, modes):
        for file in run.save():
            if file.suffix == ".svg" and file.stem in PICTURES:
                shutil.copy(file, docs / "images")


if __name__ == "__main__":
    main()
