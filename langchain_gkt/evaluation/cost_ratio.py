"""measure_costs(): what guidance saves, measured by really asking the teacher alone as well."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable

from langchain_gkt.costs.comparison import BillComparison
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.costs.report import CostReport
from langchain_gkt.costs.totals import UsageTotals
from langchain_gkt.costs.tracker import CostTracker
from langchain_gkt.evaluation.results.statistics import bootstrap_ratio
from langchain_gkt.metadata import Mode


def measure_costs(
    chain: Runnable[Any, Any],
    inputs: Sequence[Any],
    *,
    teacher_price: Prices = None,
    student_price: Prices | MachineTime = None,
    teacher_tokenizer: Callable[[str], int] | None = None,
    sample: int = 30,
    seed: int = 0,
    student: bool = True,
    confidence: float = 0.95,
    config: Mapping[str, Any] | None = None,
) -> BillComparison:
    """Ask a sample of questions in each mode and compare the bills.

    It spends real money. The modes of a question follow each other in a seeded random order,
    because a provider's prompt cache makes the later ones cheaper. Answers are not judged. For
    accuracy and cost together see `langchain_gkt.evaluation.compare`.

    Args:
        chain: The chain, or a runnable that takes its ``mode``.
        inputs: Questions to draw from.
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        teacher_tokenizer: As for `CostTracker`.
        sample: Number of questions to draw. All if there are fewer.
        seed: Seed of the draw, of the order of modes and of the bootstrap.
        student: Whether to ask the student alone too.
        confidence: Level of the intervals.
        config: Callbacks (a list) and metadata for each call.

    Returns:
        The bills, with the ratio of guided to teacher-only and its bootstrap interval.

    Raises:
        ImportError: If scipy is missing.
        ValueError: If there is no question, a model is unpriced, usage is missing, or answers
            come from a cache.
    """
    if find_spec("scipy") is None:  # before anything is paid for
        raise ImportError(
            'compare() needs scipy for its interval: pip install "langchain-gkt[report]"'
        )
    if not inputs:
        raise ValueError("inputs hold no question; give at least one")
    if sample < 1:
        raise ValueError(f"sample must be 1 or more, not {sample}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    rng = random.Random(seed)
    drawn = rng.sample(range(len(inputs)), min(sample, len(inputs)))
    modes: list[Mode] = ["guided", "teacher", *(["student"] if student else [])]
    sums = {mode: UsageTotals() for mode in modes}
    costs: list[tuple[float, float]] = []
    tokens: list[tuple[float, float]] = []
    estimated = measured = 0
    settings = dict(config or {})
    listeners: list[BaseCallbackHandler] = settings.pop("callbacks", [])
    for index in drawn:
        reports: dict[Mode, CostReport] = {}
        for mode in rng.sample(modes, len(modes)):
            tracker = CostTracker(
                teacher_price=teacher_price,
                student_price=student_price,
                teacher_tokenizer=teacher_tokenizer,
            )
            call_config: Any = {**settings, "callbacks": [*listeners, tracker]}
            chain.invoke(inputs[index], call_config, mode=mode)
            reports[mode] = report = tracker.report()
            _check(report.total, mode)
            sums[mode].add(report.total)
        guided, alone = reports["guided"], reports["teacher"]
        costs.append((float(guided.total.known_cost), float(alone.total.known_cost)))
        written = alone.teacher.completion_tokens
        tokens.append((float(guided.teacher.completion_tokens), float(written)))
        if guided.estimate.calls:
            estimated += guided.estimate.counts.completion_tokens
            measured += written
    if not sum(alone for _, alone in costs):
        raise ValueError("teacher only cost nothing, so there is no ratio; check teacher_price")
    cost_ratio = bootstrap_ratio(costs, confidence=confidence, seed=seed)
    token_ratio = bootstrap_ratio(tokens, confidence=confidence, seed=seed)
    return BillComparison(
        questions=len(costs),
        seed=seed,
        confidence=confidence,
        counts={str(mode): totals for mode, totals in sums.items()},
        ratio=cost_ratio.value,
        interval=cost_ratio.interval,
        completion_ratio=token_ratio.value,
        completion_interval=token_ratio.interval,
        estimated_completion_tokens=estimated,
        measured_completion_tokens=measured,
    )


def _check(totals: UsageTotals, mode: str) -> None:
    if totals.unpriced_calls:
        sources = "; ".join(sorted(totals.sources))
        raise ValueError(f"compare needs every price: {sources}; give teacher_price=")
    if totals.unreported_calls:
        raise ValueError(f"a {mode} answer came without usage; compare needs it from both models")
    if totals.cache_hits or not totals.calls:
        raise ValueError(
            f"a {mode} answer came from a cache and shows no cost; compare with cache=False"
        )
