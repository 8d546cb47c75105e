"""Evaluation: what guidance does to accuracy, cost and speed, on your models and your task."""

from __future__ import annotations

from typing import Any

from langchain_gkt.evaluation.compare import acompare, compare
from langchain_gkt.evaluation.results.choice import Choice
from langchain_gkt.evaluation.results.comparison import Comparison
from langchain_gkt.evaluation.results.per_question.choice import PerQuestionChoice
from langchain_gkt.evaluation.results.policy_sweep import PolicyChoice, PolicySweep
from langchain_gkt.evaluation.results.scenario_report import ScenarioReport
from langchain_gkt.evaluation.results.sweep_result import Sweep
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.evaluation.sweep import asweep, sweep
from langchain_gkt.evaluation.sweep_policies import asweep_policies, sweep_policies
from langchain_gkt.evaluation.tasks.loading import load_task
from langchain_gkt.evaluation.tasks.task import Example, Task

__all__ = [
    "Choice",
    "Comparison",
    "Example",
    "PerQuestionChoice",
    "PolicyChoice",
    "PolicySweep",
    "ScenarioReport",
    "Sweep",
    "Task",
    "acompare",
    "asweep",
    "asweep_policies",
    "compare",
    "load_run",
    "load_task",
    "sweep",
    "sweep_policies",
]


def load_run(folder: str) -> Comparison | Sweep | PolicySweep:
    """Read the folder of a run, named with ``out=``. No model is called.

    Returns:
        The result of `compare`, `sweep` or `sweep_policies`. For an interrupted run, the result so
        far.

    Raises:
        FileNotFoundError: If it is not the folder of a run.
        ValueError: If its files are damaged, or it holds too little.
    """
    read = RunStore(folder).read()
    kinds: dict[str, Any] = {"compare": Comparison, "policies": PolicySweep}
    result: Comparison | Sweep | PolicySweep = kinds.get(read.manifest["kind"], Sweep).of(read)
    return result
