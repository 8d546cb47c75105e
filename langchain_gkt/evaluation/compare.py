"""compare(): teacher, student and guided answers to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.strategy import strategy_names, strategy_of
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.evaluation.results.comparison import Comparison
from langchain_gkt.evaluation.running.async_to_sync import async_to_sync
from langchain_gkt.evaluation.running.progress import ProgressBar
from langchain_gkt.evaluation.running.recorded import require_recorded
from langchain_gkt.evaluation.running.run_settings import Billing
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.evaluation.running.runner import EvaluationRunner
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.metadata import Mode

MODES: tuple[Mode, ...] = ("teacher", "student", "guided")
"""The modes to compare by default. Any mode of the chain is allowed."""


async def acompare(
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    *,
    modes: Sequence[Mode] = MODES,
    teacher_price: Prices = None,
    student_price: Prices | MachineTime = None,
    tier: str | None = None,
    scenario: BillingScenario | None = None,
    out: str | Path | None = None,
    concurrency: int = 8,
    progress: bool | None = None,
) -> Comparison:
    """Answer the same questions in each mode and compare accuracy, cost and speed.

    Every finished row is written to disk at once. If a run was interrupted, even by ``kill -9``,
    the same call continues it. Answers in ``out`` are neither requested nor paid for again.

    Args:
        chain: The guided pair. If it has no ``max_tokens`` or ``stop``, the task's are used.
        task: The questions. See `load_task` and `Task`.
        modes: Which modes of the chain to ask, one after the other.
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        tier: As for `CostTracker`, such as ``batch`` for calls at that price.
        scenario: As for `CostTracker`. The common beginning of all prompts is measured.
        out: The run's folder. None to keep nothing.
        concurrency: Maximum number of questions at the same time. Times are measured under that
            load.
        progress: Whether to show a progress bar. None to show it in a terminal only.

    Returns:
        The comparison, over the rows that every mode has answered.

    Raises:
        ValueError: If an argument makes no sense, or ``out`` holds a run of other settings.
        RuntimeError: If every question fails, or another process writes to ``out``.
    """
    modes = tuple(modes)
    if not modes or (unknown := [mode for mode in modes if mode not in strategy_names()]):
        known = ", ".join(strategy_names())
        raise ValueError(f"modes must be some of {known}, not {unknown if modes else modes!r}")
    folder = RunStore(out)
    billing = Billing(
        teacher_price=teacher_price, student_price=student_price, tier=tier, scenario=scenario
    )
    runner = EvaluationRunner(chain, task, folder, billing, concurrency)
    if any(strategy_of(mode).asks_teacher for mode in modes):
        require_recorded(chain, runner.prompts, modes=modes)
    settings: dict[str, Any] = {**runner.settings, "modes": list(modes)}
    with (
        folder.writing("compare", settings, runner.questions, runner.about),
        ProgressBar(progress) as bar,
    ):
        runner.load()
        for mode in modes:
            await runner.run(mode, runner.missing(mode), bar)
    return Comparison.of(folder)


compare = async_to_sync(acompare, "compare")
