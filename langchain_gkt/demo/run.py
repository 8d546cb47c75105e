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
from langchain_gkt.demo.pair import PRICE, STUDENT, demo_teacher
from langchain_gkt.evaluation import Comparison, Task, compare, load_task
from langchain_gkt.evaluation.results import charts


def run_demo(*, rows: int, guidance_tokens: int, seed: int, out: Path) -> Comparison:
    """Run the demo and print its results.

    Args:
        rows: How many problems to answer in each mode.
        guidance_tokens: Most tokens the teacher writes in guided mode.
        seed: Seed of the problems.
        out: Folder to save the chart in.

    Returns:
        The comparison of the three modes.
    """
    console = Console()
    hush: Any = transformers_logging.disable_progress_bar
    hush()
    torch.set_num_threads(1)  # leaves the other core to the server
    task = load_task("word_problems", rows=rows, seed=seed)
    with demo_teacher() as teacher:
        console.print(
            f"Teacher (1.4 M weights) at {teacher.openai_api_base}, student (0.4 M) in this process"
        )
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher, student=STUDENT, guidance_tokens=guidance_tokens
        )
        found = compare(chain, task, teacher_price=PRICE, concurrency=2)
    console.print(found.table().text(), highlight=False, soft_wrap=True)
    console.print(_example(task, found))
    files = charts.save_figures({"demo": found.figures()["modes"]}, out)
    paid, alone = found.summaries["guided"], found.summaries["teacher"]
    tokens = paid.teacher.completion_tokens / alone.teacher.completion_tokens
    console.print(
        f"Guided paid {float((paid.cost or 0) / (alone.cost or 1)):.0%} of teacher-only's bill and "
        f"{tokens:.0%} of its completion tokens, at the list price of {PRICE}; the prompt is paid "
        "for either way.\n"
        "These are toy models that show the mechanism: they know one family of word problems.\n"
        f"Chart: {files[0]}. Next: put your own models into the README's first example."
    )
    return found


def _example(task: Task, found: Comparison) -> Text:
    """Show a problem that the student solves with guidance alone, and mark the guidance."""
    by_mode = {
        mode: {a.row: a for a in found.answers if a.mode == mode} for mode in ("student", "guided")
    }
    keys = [task.row_key(i) for i in range(len(task.rows))]
    solved = (
        i
        for i, key in enumerate(keys)
        if by_mode["guided"][key].right and not by_mode["student"][key].right
    )
    i = next(solved, 0)
    alone, guided = by_mode["student"][keys[i]], by_mode["guided"][keys[i]]
    return Text.assemble(
        ("\nQuestion  ", "bold"),
        str(task.rows[i]["question"]),
        ("\nAlone     ", "bold"),
        alone.text,
        ("\nGuided    ", "bold"),
        ("[" + guided.guidance + "]", "bold green"),
        guided.text[len(guided.guidance) :],
        ("   ([...] is the teacher's guidance)\n", "dim"),
    )
