"""Evaluation: what guidance does to accuracy, cost and speed, on your models and your task."""

from __future__ import annotations

from langchain_gkt.evaluation.compare import acompare, compare
from langchain_gkt.evaluation.results.comparison import Comparison
from langchain_gkt.evaluation.results.frontier import Choice
from langchain_gkt.evaluation.results.per_question.choice import PerQuestionChoice
from langchain_gkt.evaluation.results.sweep_result import Sweep
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.evaluation.sweep import asweep, sweep
from langchain_gkt.evaluation.tasks.loading import load_task
from langchain_gkt.evaluation.tasks.task import Example, Task

__all__ = [
    "Choice",
    "Comparison",
    "Example",
    "PerQuestionChoice",
    "Sweep",
    "Task",
    "acompare",
    "asweep",
    "compare",
    "load_run",
    "load_task",
    "sweep",
]


def load_run(folder: str) -> Comparison | Sweep:
    """Read the folder of a run; no model is called.

    Args:
        folder: What ``out=`` named.

    Returns:
        What `compare` or `sweep` returned; of an interrupted run, what it has so far.

    Raises:
        FileNotFoundError: If it is not the folder of a run.
        ValueError: If its files are damaged, or it holds too little.
    """
    read = RunStore(folder).read()
    return Comparison.of(read) if read.manifest["kind"] == "compare" else Sweep.of(read)
