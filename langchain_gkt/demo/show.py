"""The demo: three ways to answer, side by side, over a real HTTP API."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # the demo only saves its chart
import torch
from langchain_openai import ChatOpenAI
from matplotlib import pyplot
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest
from transformers.utils import logging as transformers_logging

from langchain_gkt import CostReport, GuidedKnowledgeTransferChain, track_costs
from langchain_gkt.calls import Mode
from langchain_gkt.demo.cloud import LocalCloud
from langchain_gkt.evaluation.word_problems import WordProblem, sample

MODELS = Path(__file__).parent / "models"
PRICE = "openai:gpt-4o-mini"
"""Price list entry the toy teacher is billed at, as if it were that model."""
MODES: tuple[Mode, ...] = ("teacher", "student", "guided")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One mode's answers to all problems.

    Attributes:
        mode: How the answers came about.
        texts: The answers.
        guidances: What of each answer the teacher wrote.
        right: Which answers are right.
        seconds: Wall time for all of them.
        report: What they cost.
    """

    mode: Mode
    texts: list[str]
    guidances: list[str]
    right: list[bool]
    seconds: float
    report: CostReport

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.right)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the accuracy, at 95%."""
        found: Any = binomtest(sum(self.right), len(self.right)).proportion_ci(method="wilson")
        return found.low, found.high


def is_right(text: str, problem: WordProblem) -> bool:
    """Whether an answer states the problem's number.

    Args:
        text: An answer.
        problem: The problem it answers.

    Returns:
        Whether the last ``The answer is N`` names the right number.
    """
    said = re.findall(r"answer is (-?\d+)", text)
    return bool(said) and int(said[-1]) == problem.answer


def answer_all(
    chain: GuidedKnowledgeTransferChain,
    mode: Mode,
    problems: Sequence[WordProblem],
    progress: Progress,
) -> Outcome:
    """Answer all problems in one mode, two at a time.

    Args:
        chain: The chain to ask.
        mode: The mode to ask it in.
        problems: What to ask.
        progress: Where to show how far it is.

    Returns:
        The answers with their cost.
    """
    bar = progress.add_task(mode, total=len(problems))
    messages: list[Any] = [None] * len(problems)
    began = time.perf_counter()
    with track_costs(teacher_price=PRICE) as costs:
        questions = [problem.question for problem in problems]
        bound = chain.bind(mode=mode)
        for i, message in bound.batch_as_completed(questions, {"max_concurrency": 2}):
            messages[i] = message
            progress.advance(bar)
    seconds = time.perf_counter() - began
    texts = [message.text for message in messages]
    return Outcome(
        mode=mode,
        texts=texts,
        guidances=[message.response_metadata["gkt"]["guidance"] for message in messages],
        right=[is_right(text, problem) for text, problem in zip(texts, problems, strict=True)],
        seconds=seconds,
        report=costs.report(),
    )


def table(outcomes: Sequence[Outcome]) -> Table:
    """Lay the outcomes out side by side.

    Args:
        outcomes: One outcome a mode.

    Returns:
        A table for a rich console.
    """
    shown = Table(
        title=f"{len(outcomes[0].right)} word problems",
        box=None,  # fits a terminal of 80 columns
        padding=(0, 1, 0, 0),
        caption=f"tokens are prompt + completion; cost at the list price of {PRICE}",
    )
    shown.add_column("mode", no_wrap=True)
    for column in ("accuracy (95%)", "teacher tokens", "student tokens", "seconds", "cost"):
        shown.add_column(column, justify="right", no_wrap=True)
    for outcome in outcomes:
        data = outcome.report.to_dict()
        tokens = [
            f"{data[role]['prompt_tokens']:,} + {data[role]['completion_tokens']:,}"
            for role in ("teacher", "student")
        ]
        low, high = outcome.interval
        cost = data["total"]["cost"]
        shown.add_row(
            outcome.mode,
            f"{outcome.accuracy:.0%} ({low:.0%}-{high:.0%})",
            *tokens,
            f"{outcome.seconds:.1f}",
            "unpriced" if cost is None else f"${float(cost):.5f}",
        )
    return shown


def chart(outcomes: Sequence[Outcome], file: Path) -> None:
    """Save accuracy and cost as a picture.

    Args:
        outcomes: One outcome a mode.
        file: Where to save the PNG.
    """
    colours = ["#4C72B0", "#8C8C8C", "#55A868"]
    names = [outcome.mode for outcome in outcomes]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    means = [outcome.accuracy for outcome in outcomes]
    errors = [
        [mean - outcome.interval[0] for mean, outcome in zip(means, outcomes, strict=True)],
        [outcome.interval[1] - mean for mean, outcome in zip(means, outcomes, strict=True)],
    ]
    left.bar(names, means, color=colours, yerr=errors, capsize=4)
    left.set(title="Accuracy, with 95% intervals", ylim=(0, 1.05))
    left.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    micro = [1e6 / len(outcome.right) for outcome in outcomes]
    prompt = [m * _dollars(o, "prompt_cost") for m, o in zip(micro, outcomes, strict=True)]
    rest = [m * _dollars(o, "completion_cost") for m, o in zip(micro, outcomes, strict=True)]
    right.bar(names, prompt, color=colours, alpha=0.45)
    right.bar(names, rest, bottom=prompt, color=colours)
    right.set(title="Teacher's price of an answer", ylabel=f"µ$ at {PRICE}")
    right.set_xlabel("pale: prompt, full: completion")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _dollars(outcome: Outcome, field: str) -> float:
    return float(outcome.report.to_dict()["teacher"][field])


def run(*, rows: int, guidance_tokens: int, seed: int, out: Path) -> list[Outcome]:
    """Run the demo and print what came out.

    Args:
        rows: How many problems to answer in each mode.
        guidance_tokens: Most tokens the teacher writes in guided mode.
        seed: Seed of the problems.
        out: Folder to save the chart in.

    Returns:
        The outcomes, one a mode.
    """
    console = Console()
    hush: Any = transformers_logging.disable_progress_bar
    hush()
    torch.set_num_threads(1)  # the other core is the server's
    problems = sample(seed, rows)
    with LocalCloud(MODELS / "teacher", name="demo-teacher") as cloud:
        console.print(
            f"Teacher (1.4 M weights) at {cloud.base_url}, student (0.4 M) in this process"
        )
        chain = GuidedKnowledgeTransferChain(
            teacher=ChatOpenAI(
                base_url=cloud.base_url,
                api_key=SecretStr("local"),
                model=cloud.name,
                temperature=0,
            ),
            student=MODELS / "student",
            guidance_tokens=guidance_tokens,
        )
        columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            outcomes = [answer_all(chain, mode, problems, progress) for mode in MODES]
    console.print(table(outcomes))
    teacher, student, guided = outcomes
    console.print(_example(problems, student, guided))
    chart(outcomes, out / "demo.png")
    paid, alone = guided.report.to_dict()["teacher"], teacher.report.to_dict()["teacher"]
    console.print(
        f"Guided paid {float(paid['cost']) / float(alone['cost']):.0%} of teacher-only's bill and "
        f"{paid['completion_tokens'] / alone['completion_tokens']:.0%} of its completion tokens; "
        "the prompt is paid for either way.\n"
        "These are toy models that show the mechanism: they know one family of word problems.\n"
        f"Chart: {out / 'demo.png'}. Next: put your own models into the README's first example."
    )
    return outcomes


def _example(problems: Sequence[WordProblem], student: Outcome, guided: Outcome) -> Text:
    """Show one problem that guidance turned, with the guidance marked."""
    both = zip(student.right, guided.right, strict=True)
    i = next((i for i, (alone, led) in enumerate(both) if led and not alone), 0)
    begun = guided.guidances[i]
    return Text.assemble(
        ("Question  ", "bold"),
        problems[i].question,
        ("\nAlone     ", "bold"),
        student.texts[i],
        ("\nGuided    ", "bold"),
        ("[" + begun + "]", "bold green"),
        guided.texts[i][len(begun) :],
        ("   ([...] is the teacher's guidance)\n", "dim"),
    )
