"""The figures of docs/measurements/recorded-teachers.md, from a run over recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean
from typing import Any, NamedTuple

from langchain_gkt.costs import BillingScenario
from langchain_gkt.evaluation import Sweep
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.any_way import choose_any_way, oracle, random_router
from langchain_gkt.evaluation.results.choice import halves
from langchain_gkt.evaluation.results.outcomes import OutcomeMatrix, most_accurate
from langchain_gkt.evaluation.running.repricing import repriced

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SPLITS = 10
KEPT = 0.95
DEARER = BillingScenario.listed("openai:gpt-5-mini", cached_prefix=True)
"""A completion token costs eight prompt tokens there, and what all prompts begin with is cached."""


class Line(NamedTuple):
    """One way on unseen rows, within a budget; shares of the teacher's bill and accuracies."""

    bill: float
    accuracy: float
    random: float
    oracle: float


def condense(found: Sweep) -> dict[str, Any]:
    """Take the figures of a run.

    Args:
        found: The sweep over recorded answers.

    Returns:
        Plain values.
    """
    outcomes, settings = found.outcomes, found.manifest["settings"]
    dearer = Sweep.of(repriced(found.folder, DEARER))
    shares = [signals["agreement"] for signals in outcomes.signals]
    votes = outcomes.point("vote of 5")
    return {
        "date": found.manifest["sessions"][-1]["started"][:10],
        "task": settings["task"]["name"],
        "rows": len(outcomes.rows),
        "teacher": settings["teacher"][0]["model"],
        "prices": settings["prices"]["teacher"],
        "right": {
            "student": outcomes.point(0).accuracy,
            "vote": votes.accuracy,
            "teacher": outcomes.point(TEACHER_ALONE).accuracy,
        },
        "dollars_per_thousand": outcomes.point(TEACHER_ALONE).cost,
        "teacher_tokens": [
            found.teacher.teacher.prompt_tokens / found.teacher.rows,
            found.teacher.teacher.completion_tokens / found.teacher.rows,
        ],
        "agreeing": [_agreeing(shares, votes.rights, number / 5) for number in range(1, 6)],
        "prefixes": {str(n): _prefix(found, n) for n in outcomes.lengths if n},
        "lines": _lines(found),
        "kept": _cheapest(found),
        "dearer": {
            "lines": _lines(dearer),
            "kept": _cheapest(dearer),
            "dollars_per_thousand": dearer.outcomes.point(TEACHER_ALONE).cost,
        },
    }


def _prefix(found: Sweep, tokens: int) -> list[float]:
    """Return what the student makes of a beginning.

    Returns:
        The bill, the accuracy and that of a random router at the same bill. Then the mean number of
        tokens that the student writes, and how many it writes alone.
    """
    outcomes, alone = found.outcomes, found.student
    point, begun = outcomes.point(tokens), found.by_length[tokens]
    drawn = random_router(outcomes, point.cost, range(len(outcomes.rows)))
    bill = point.cost / outcomes.point(TEACHER_ALONE).cost
    written = [one.student.completion_tokens / one.rows for one in (begun, alone)]
    return [bill, point.accuracy, drawn.accuracy, *written]


def _lines(found: Sweep) -> dict[str, dict[str, list[float]]]:
    outcomes = found.outcomes
    gates = {
        "agreement": lambda seen: [v for g in found.gates for v in outcomes.gates(seen, [g])],
        "confidence": outcomes.gates,
    }
    return {name: _line(outcomes, of) for name, of in gates.items()}


def _agreeing(shares: Sequence[float], right: Sequence[bool], share: float) -> list[int]:
    """Return of how many rows so many answers agree, and how many of those are right."""
    rows = [
        is_right for one, is_right in zip(shares, right, strict=True) if abs(one - share) < 0.01
    ]
    return [len(rows), sum(rows)]


def splits(rows: Sequence[str]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the numbers of the rows that choose, and of those that test."""
    for seed in range(SPLITS):
        first, second = halves(rows, seed)
        yield first, second
        yield second, first


def _line(
    outcomes: OutcomeMatrix, gates: Callable[[Sequence[int]], Sequence[Any]]
) -> dict[str, list[float]]:
    """Return by budget what the best threshold on seen rows gives on unseen ones."""
    found: dict[str, list[Line]] = {str(budget): [] for budget in BUDGETS}
    for seen, unseen in splits(outcomes.rows):
        points = [outcomes.point(0, only=seen)]
        points += [outcomes.point(TEACHER_ALONE, gate, only=seen) for gate in gates(seen)]
        whole = outcomes.point(TEACHER_ALONE, only=seen).cost
        base = outcomes.point(TEACHER_ALONE, only=unseen).cost
        for budget in BUDGETS:
            best = most_accurate([p for p in points if p.cost <= budget * whole])
            tested = outcomes.point(best.length, best.gate, only=unseen)
            rivals = (way(outcomes, tested.cost, unseen) for way in (random_router, oracle))
            accuracies = (rival.accuracy for rival in rivals)
            found[str(budget)].append(Line(tested.cost / base, tested.accuracy, *accuracies))
    return {
        budget: [round(mean(values), 4) for values in zip(*lines, strict=True)]
        for budget, lines in found.items()
    }


def _cheapest(found: Sweep) -> list[float]:
    """Return what the cheapest way that keeps 95% on the seen rows keeps and pays on others."""
    kept = []
    for seed in range(SPLITS):
        loss = (1 - KEPT) * found.outcomes.point(TEACHER_ALONE).accuracy
        choice = choose_any_way({"": found.measured}, max_loss=loss, seed=seed)
        kept.append((choice.kept or 0.0, choice.bill or 0.0))
    return [round(mean(values), 4) for values in zip(*kept, strict=True)]
