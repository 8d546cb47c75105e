"""Learns, chooses and tests a predictor on separate parts of a sweep's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.choice import Choice, Goal, shuffled
from langchain_gkt.evaluation.results.frontier import worthwhile
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
    most_accurate,
)
from langchain_gkt.evaluation.results.per_question.learning import (
    FEWEST_ROWS,
    predictors,
    prices_to_try,
)
from langchain_gkt.evaluation.results.per_question.random_mix import RandomMix, random_mix
from langchain_gkt.gates import Gate, LearnedGate
from langchain_gkt.gates.calibration import threshold_for
from langchain_gkt.guidance import GuidancePolicy

_FOLDS = 5
PREDICTOR, RANDOM = "predictor", "random mix"


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A predictor and its rivals on rows that they have not seen.

    Attributes:
        rivals: Results of fixed length, gate, cascade and the models alone, by kind.
        mix: The random mix of fixed ways, against the predictor.
    """

    predictor: OperatingPoint
    rivals: Mapping[str, OperatingPoint]
    mix: RandomMix


@dataclass(frozen=True, kw_only=True)
class PerQuestionChoice(Choice):
    """A predictor, and its results on rows that it has not seen.

    ``chosen`` is measured on the rows that chose the price, not on those that trained the
    predictor. ``best`` is the best fixed way, the teacher alone included.

    Attributes:
        goal: The goal of the choice.
        train_rows: How many rows trained it.
        tested: Predictor and rivals on the unseen rows.
        cross_fitted: The same over all rows. A predictor, and rivals, trained on other rows answer
            each.
        outcomes: The sweep's outcomes.
    """

    goal: Goal
    train_rows: int
    tested: Tested
    cross_fitted: Tested
    outcomes: OutcomeMatrix

    @property
    def choose_rows(self) -> int:
        """How many rows chose its length and its price."""
        return self.chosen.rows

    @property
    def seen_rows(self) -> int:
        """How many rows made it."""
        return self.train_rows + self.choose_rows

    def __str__(self) -> str:
        """Return the choice in a few sentences."""
        mix, (low, high) = self.tested.mix, self.unseen.interval
        claim = "ahead of" if mix.is_beaten else "not surely ahead of"
        return (
            f"per question ({self.unseen.guidance}): {self.unseen.accuracy:.1%} right on "
            f"{self.unseen_rows} unseen rows (95% interval {low:.1%} to {high:.1%}), at "
            f"{self.unseen.price} against {self.best.price} for {self.best.guidance}, which is "
            f"right on {self.best.accuracy:.1%} of them; {claim} a random router that costs the "
            f"same: {100 * mix.gain:+.1f} points ({100 * mix.gain_interval[0]:+.1f} to "
            f"{100 * mix.gain_interval[1]:+.1f})"
        )


def choose_per_question(outcomes: OutcomeMatrix, goal: Goal, *, seed: int = 0) -> PerQuestionChoice:
    """Learn a predictor, choose its price, and test it. See `Sweep.choose`."""
    _refuse_poor(outcomes)
    order = shuffled(outcomes.rows, seed)
    third = len(order) // 3
    train, choose, unseen = order[:third], order[third : 2 * third], order[2 * third :]
    seen = [*train, *choose]
    chosen = _learn(outcomes, goal, train, choose)
    assert isinstance(chosen.gate, LearnedGate)
    points = _compete(outcomes, goal, chosen, seen, unseen)
    best = most_accurate(_fixed(outcomes, seen))
    return PerQuestionChoice(
        policy=GuidancePolicy(tokens=chosen.length, predictor=chosen.gate.predictor),
        max_loss=goal.max_loss,
        chosen=chosen,
        unseen=points[PREDICTOR],
        best=outcomes.point(best.length, only=unseen),
        goal=goal,
        train_rows=third,
        tested=_tested(outcomes, points, worthwhile(outcomes, seen), unseen),
        cross_fitted=_cross_fit(outcomes, goal, order),
        outcomes=outcomes,
    )


def _refuse_poor(outcomes: OutcomeMatrix) -> None:
    if len(outcomes.rows) < FEWEST_ROWS:
        raise ValueError(
            f"predictor=True needs {FEWEST_ROWS} rows, a third each to learn from, to choose by "
            f"and to test on, and there are {len(outcomes.rows)}; sweep over more"
        )
    if not any(outcomes.lengths):
        raise ValueError(
            "predictor=True needs guidance of some length, and only 0 was answered in every row; "
            "give sweep() lengths of 1 or more, or call it again with the same out= to go on"
        )
    if not outcomes.questions:
        raise ValueError(
            "predictor=True needs the questions of the rows, which these outcomes do not hold; "
            "call sweep() again with the same out="
        )


def _fixed(outcomes: OutcomeMatrix, rows: Sequence[int]) -> list[OperatingPoint]:
    return [outcomes.point(n, only=rows) for n in (*outcomes.lengths, TEACHER_ALONE)]


def _learn(
    outcomes: OutcomeMatrix, goal: Goal, train: Sequence[int], choose: Sequence[int]
) -> OperatingPoint:
    """Learn predictors from one part of the rows, and choose length and price by another."""
    points = list[OperatingPoint]()
    for length, learned in predictors(outcomes, train).items():
        prices = prices_to_try(learned, outcomes, train)
        if goal.price_per_point is not None:
            prices = [goal.price_per_point]
        for price in prices:
            gate = LearnedGate(predictor=replace(learned, price_per_point=price))
            if goal.share is not None:
                scores = [gate.score(outcomes.features[row]) for row in (*train, *choose)]
                gate = gate.asking_above(threshold_for(scores, goal.share))
            points.append(outcomes.point(length, gate, only=choose))
    return goal.best(points, max(point.accuracy for point in _fixed(outcomes, choose)))


def _compete(
    outcomes: OutcomeMatrix,
    goal: Goal,
    chosen: OperatingPoint,
    seen: Sequence[int],
    unseen: Sequence[int],
) -> dict[str, OperatingPoint]:
    """Answer unseen rows by a predictor, and by rivals that the seen rows choose."""
    points = {PREDICTOR: outcomes.point(chosen.length, chosen.gate, only=unseen)}
    most = max(point.accuracy for point in _fixed(outcomes, seen))
    for kind, ways in _rivals(outcomes, goal, seen).items():
        best = goal.best([outcomes.point(*way, only=seen) for way in ways], most)
        points[kind] = outcomes.point(best.length, best.gate, only=unseen)
    return points


_Way = tuple[int, Gate | None]


def _rivals(outcomes: OutcomeMatrix, goal: Goal, seen: Sequence[int]) -> dict[str, list[_Way]]:
    """Return the settings, length and gate, that each rival may choose among."""
    fixed: list[_Way] = [(length, None) for length in outcomes.lengths]
    student: list[_Way] = [(0, None)]
    teacher: list[_Way] = [(TEACHER_ALONE, None)]
    rivals = {"fixed length": fixed}
    if outcomes.tells_confidence:
        gates = outcomes.gates(seen)
        gated: list[_Way] = [(n, gate) for gate in gates for n in outcomes.lengths if n]
        cascade: list[_Way] = [(TEACHER_ALONE, gate) for gate in gates]
        rivals["gated length"] = [*fixed, *gated]
        rivals["cascade of whole answers"] = [*student, *teacher, *cascade]
        if goal.share is not None:
            best = outcomes.best_gate(seen, CONFIDENCE_GATES)
            scores = [outcomes.scores(best)[row] for row in seen]
            gate = best.asking_above(threshold_for(scores, goal.share))
            rivals["gated length"] = [(n, gate) for n in outcomes.lengths if n]
            rivals["cascade of whole answers"] = [(TEACHER_ALONE, gate)]
    return {**rivals, "student alone": student, "teacher alone": teacher}


def _tested(
    outcomes: OutcomeMatrix,
    points: Mapping[str, OperatingPoint],
    hull: Sequence[int],
    rows: Sequence[int],
) -> Tested:
    rivals = dict(points)
    predictor = rivals.pop(PREDICTOR)
    mix = random_mix(predictor, [outcomes.point(length, only=rows) for length in hull])
    return Tested(predictor=predictor, rivals=rivals, mix=mix)


def _cross_fit(outcomes: OutcomeMatrix, goal: Goal, order: Sequence[int]) -> Tested:
    """Answer every row by a predictor, and by rivals, that have not seen it."""
    folds = [order[i::_FOLDS] for i in range(_FOLDS)]
    parts = list[dict[str, OperatingPoint]]()
    for fold in folds:
        unseen = set(fold)
        seen = [row for row in order if row not in unseen]
        half = len(seen) // 2
        chosen = _learn(outcomes, goal, seen[:half], seen[half:])
        parts.append(_compete(outcomes, goal, chosen, seen, fold))
    rows = [row for fold in folds for row in fold]
    joined = {kind: _joined([part[kind] for part in parts]) for kind in parts[0]}
    return _tested(outcomes, joined, worthwhile(outcomes, rows), rows)


def _joined(parts: Sequence[OperatingPoint]) -> OperatingPoint:
    """Join the results of one kind of way on different rows."""
    ways = {part.way for part in parts}
    return replace(
        parts[0],
        gate=None,
        outcomes=tuple(chain.from_iterable(part.outcomes for part in parts)),
        words=ways.pop() if len(ways) == 1 else "varies",
    )
