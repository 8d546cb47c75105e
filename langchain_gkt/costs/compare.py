"""Measures what guidance saves: the same questions, really asked of the teacher alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from langchain_gkt.costs.totals import Counts, amount

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from langchain_gkt.costs.tracker import CostTracker

Mode = Literal["guided", "teacher", "student"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The bill of the same questions in each mode, measured.

    Attributes:
        questions: How many questions were asked in each mode.
        seed: Seed of the sample and of the order of the modes.
        confidence: Level of the intervals.
        counts: Sums of both models by mode.
        ratio: Cost of guided answers over that of teacher-only ones; sums, not a mean.
        interval: Bootstrap interval of the ratio over questions; None for a single question.
        completion_ratio: The same for the teacher's completion tokens alone.
        completion_interval: Its interval.
        estimated_completion_tokens: What the estimate said teacher-only would write, over the
            guided answers it could judge; to be held against the next.
        measured_completion_tokens: What teacher-only wrote for the same questions.
    """

    questions: int
    seed: int
    confidence: float
    counts: dict[str, Counts]
    ratio: float
    interval: tuple[float, float] | None
    completion_ratio: float
    completion_interval: tuple[float, float] | None
    estimated_completion_tokens: int
    measured_completion_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        estimated, measured = self.estimated_completion_tokens, self.measured_completion_tokens
        return {
            "estimated": False,
            "questions": self.questions,
            "seed": self.seed,
            "confidence": self.confidence,
            "ratio": self.ratio,
            "interval": list(self.interval) if self.interval else None,
            "completion_ratio": self.completion_ratio,
            "completion_interval": (
                list(self.completion_interval) if self.completion_interval else None
            ),
            "modes": {mode: counts.to_dict() for mode, counts in self.counts.items()},
            "cost": amount(sum((c.known_cost for c in self.counts.values()), Decimal(0))),
            "estimate_error": (estimated / measured - 1) if estimated and measured else None,
        }

    def __str__(self) -> str:
        """Return the result in a sentence."""
        text = (
            f"measured on {self.questions} question(s): guided answers cost {self.ratio:.1%} of "
            "teacher only"
        )
        if self.interval:
            low, high = self.interval
            text += f" ({self.confidence:.0%} interval {low:.1%} to {high:.1%})"
        return f"{text}, {self.completion_ratio:.1%} of its completion tokens"


@dataclass(frozen=True)
class _Row:
    guided: tuple[Decimal, int]
    teacher: tuple[Decimal, int]


def _compare(
    tracker: CostTracker,
    chain: Runnable[Any, Any],
    inputs: Sequence[Any],
    *,
    sample: int = 30,
    seed: int = 0,
    student: bool = True,
    confidence: float = 0.95,
) -> Comparison:
    """Ask a sample of questions in each mode and compare the bills.

    It spends real money. The modes of a question follow each other in a seeded random order,
    because a provider's prompt cache makes the later ones cheaper. A tracker it is called on
    keeps what it spends apart from its bill, and shows the result in its report.

    Args:
        tracker: Whose prices to use.
        chain: The chain, or a runnable that takes its ``mode``.
        inputs: Questions to draw from.
        sample: How many to draw; all where there are fewer.
        seed: Seed of the draw, of the order of modes and of the bootstrap.
        student: Whether to ask the student alone too.
        confidence: Level of the intervals.

    Returns:
        The bills, with the ratio of guided to teacher-only and its bootstrap interval.

    Raises:
        ImportError: If scipy is missing.
        ValueError: If there is no question, a model is unpriced, usage is missing, or answers
            come from a cache.
    """
    _bootstrap()
    if not inputs:
        raise ValueError("inputs hold no question; give at least one")
    if sample < 1:
        raise ValueError(f"sample must be 1 or more, not {sample}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    rng = random.Random(seed)
    drawn = rng.sample(range(len(inputs)), min(sample, len(inputs)))
    modes: list[Mode] = ["guided", "teacher", *(["student"] if student else [])]  # type: ignore[list-item]
    sums = {mode: Counts() for mode in modes}
    rows: list[_Row] = []
    estimated = measured = 0
    for index in drawn:
        bills: dict[str, tuple[Decimal, int]] = {}
        guessed: int | None = None
        for mode in rng.sample(modes, len(modes)):
            probe = tracker._probe()
            config: Any = {
                "callbacks": [tracker, probe],
                "metadata": {"gkt_compared": tracker._id},
            }
            chain.invoke(inputs[index], config, mode=mode)
            report = probe.report()
            _check(report.total, mode)
            sums[mode].add(report.total)
            bills[mode] = (report.total.known_cost, report.teacher.completion_tokens)
            if mode == "guided" and report.estimate.calls:
                guessed = report.estimate.counts.completion_tokens
        rows.append(_Row(bills["guided"], bills["teacher"]))
        if guessed is not None:
            estimated, measured = estimated + guessed, measured + bills["teacher"][1]
    money = [(float(row.guided[0]), float(row.teacher[0])) for row in rows]
    tokens = [(float(row.guided[1]), float(row.teacher[1])) for row in rows]
    if not sum(alone for _, alone in money):
        raise ValueError("teacher only cost nothing, so there is no ratio; check teacher_price")
    result = Comparison(
        questions=len(rows),
        seed=seed,
        confidence=confidence,
        counts={mode: sums[mode] for mode in modes},
        ratio=_ratio(money),
        interval=_interval(money, confidence, seed),
        completion_ratio=_ratio(tokens),
        completion_interval=_interval(tokens, confidence, seed),
        estimated_completion_tokens=estimated,
        measured_completion_tokens=measured,
    )
    tracker._comparison = result
    return result


def _check(counts: Counts, mode: str) -> None:
    if counts.unpriced_calls:
        sources = "; ".join(sorted(counts.sources))
        raise ValueError(f"compare needs every price: {sources}; give teacher_price=")
    if counts.unreported_calls:
        raise ValueError(f"a {mode} answer came without usage; compare needs it from both models")
    if counts.cache_hits or not counts.calls:
        raise ValueError(
            f"a {mode} answer came from a cache and shows no cost; compare with cache=False"
        )


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(guided for guided, _ in pairs) / sum(alone for _, alone in pairs)


def _interval(
    pairs: Sequence[tuple[float, float]], confidence: float, seed: int
) -> tuple[float, float] | None:
    if len(pairs) < 2:
        return None
    # Percentiles, because BCa is undefined where all questions cost alike.
    found = _bootstrap()(
        tuple(zip(*pairs, strict=True)),
        lambda guided, alone, axis=-1: guided.sum(axis=axis) / alone.sum(axis=axis),
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return float(found.low), float(found.high)


def _bootstrap() -> Any:
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        raise ImportError(
            'compare() needs scipy for its interval: pip install "langchain-gkt[report]"'
        ) from error
    return bootstrap


class _OnTrackerOrClass:
    """Binds to a tracker, or on the class to a fresh one that looks its prices up."""

    __doc__ = _compare.__doc__

    def __get__(
        self, tracker: CostTracker | None, owner: type[CostTracker]
    ) -> Callable[..., Comparison]:
        return partial(_compare, owner() if tracker is None else tracker)


class ComparesChains:
    """Gives `CostTracker` its ``compare``."""

    compare = _OnTrackerOrClass()
