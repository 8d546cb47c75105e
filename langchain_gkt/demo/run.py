"""The demo: teacher, student and guided answers, side by side, over a real HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # the chart is saved, not shown
import torch
from rich.console import Console
from rich.text import Text
from transformers.utils import logging as transformers_logging

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.demo.pair import PRICE, STUDENT, TOYS, demo_teacher
from langchain_gkt.evaluation import Comparison, Task, compare, load_task
from langchain_gkt.reporting import charts


def run_demo(*, rows: int, guidance_tokens: int, seed: int, out: Path) -> Comparison:
    """Run the demo and print its results.

    Args:
        rows: How many problems to answer in each mode.
        guidance_tokens: Maximum tokens of the teacher in guided mode.
        seed: Seed of the problems.
        out: Folder to save the chart in.
    """
    console = Console()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)  # leaves the other core to the server
    task = load_task("word_problems", rows=rows, seed=seed)
    console.print("Starting the embedded teacher, a server on this machine ...")
    with demo_teacher() as teacher:
        console.print(
            f"Teacher (1.4 M weights) at {teacher.openai_api_base}, student (0.4 M) in this process"
        )
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher, student=STUDENT, guidance_tokens=guidance_tokens
        )
        comparison = show_demo(chain, task, out=out, teacher_price=PRICE)
    console.print(
        f"{TOYS} They show the mechanism.\n"
        "Next: your own models, with --teacher, --student, --task and --data, or in the README's "
        "first example."
    )
    return comparison


def show_demo(
    chain: GuidedKnowledgeTransferChain, task: Task, *, out: Path, **settings: Any
) -> Comparison:
    """Answer a task's questions in the three modes, print the results, and save a chart.

    The settings are other arguments of `compare`.
    """
    console = Console()
    comparison = compare(chain, task, **{"concurrency": 2, **settings})
    console.print(comparison.table().text(), highlight=False, soft_wrap=True)
    console.print(_example(task, comparison))
    files = charts.save_figures({"demo": comparison.figures()["modes"]}, out)
    paid, alone = comparison.summaries["guided"], comparison.summaries["teacher"]
    tokens = paid.teacher.completion_tokens / max(1, alone.teacher.completion_tokens)
    bill = "no price is known"
    if paid.cost is not None and alone.cost:
        bill = f"{float(paid.cost / alone.cost):.0%} of its bill; the prompt is paid for either way"
    console.print(
        f"Guided paid for {tokens:.0%} of teacher-only's completion tokens; {bill}.\n"
        f"Chart: {files[0]}."
    )
    return comparison


def _example(task: Task, comparison: Comparison) -> Text:
    """Show a problem that the student solves only with guidance, and mark the guidance."""
    questions = {task.row_key(i): str(row["question"]) for i, row in enumerate(task.rows)}
    by_student = {a.row: a for a in comparison.answers if a.mode == "student"}
    by_both = {a.row: a for a in comparison.answers if a.mode == "guided"}
    rows = [row for row in questions if row in by_student and row in by_both]
    solved = (row for row in rows if by_both[row].right and not by_student[row].right)
    row = next(solved, rows[0])
    alone, guided = by_student[row], by_both[row]
    return Text.assemble(
        ("\nQuestion  ", "bold"),
        questions[row],
        ("\nAlone     ", "bold"),
        alone.text,
        ("\nGuided    ", "bold"),
        ("[" + guided.guidance + "]", "bold green"),
        guided.text[len(guided.guidance) :],
        ("   ([...] is the teacher's guidance)\n", "dim"),
    )
