"""Learns, chooses and tests a predictor on parts of a sweep's rows that share none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_gkt.errors import share_number
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.choice import Choice, check_max_loss, shuffled
from langchain_gkt.evaluation.results.outcomes import (
    CONFIDENCE_GATES,
    OperatingPoint,
    OutcomeMatrix,
)
from langchain_gkt.evaluation.results.per_question.learning import (
    FEWEST_ROWS,
    predictors,
    prices_to_try,
    values_of_rows,
    worthwhile,
)
from langchain_gkt.evaluation.results.per_question.random_mix import (
    Answered,
    RandomMix,
    random_mix,
)
from langchain_gkt.gates import Gate, LearnedGate, Predictor
from langchain_gkt.gates.calibration import threshold_for
from langchain_gkt.guidance import Cut, GuidancePolicy

_FOLDS = 5
PREDICTOR, RANDOM = "predictor", "random mix"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted of a way to answer.

    Attributes:
        max_loss: Accuracy that may be given up against the best way; the cheapest is taken.
        price_per_point: What a point of accuracy is worth, in the unit of the costs; then the way
            that is worth most after its price is taken. None to choose by ``max_loss``.
        share: In how many of the questions the teacher is asked; None for any.
    """

    max_loss: float = 0.02
    price_per_point: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        price = self.price_per_point
        check_max_loss(self.max_loss)
        number = isinstance(price, int | float) and not isinstance(price, bool)
        if price is not None and not (number and 0 < price < float("inf")):
            raise ValueError(
                "price_per_point must be a number above 0, in the unit of the sweep's costs, not "
                f"{price!r}"
            )
        if self.share is not None:
            share_number("share", self.share)

    def best(self, points: Sequence[OperatingPoint], most: float) -> int:
        """Return the best point's number; ``most`` is the accuracy of the best way there is."""
        numbers = range(len(points))
        if self.price_per_point is not None:
            worth = [100 * p.accuracy - p.cost / self.price_per_point for p in points]
            return max(numbers, key=lambda i: (worth[i], -points[i].cost))
        # With a share, not every accuracy can be had.
        most = max(p.accuracy for p in points) if self.share is not None else most
        enough = [i for i in numbers if points[i].accuracy >= most - self.max_loss]
        if not enough:
            return max(numbers, key=lambda i: (points[i].accuracy, -points[i].cost))
        return min(enough, key=lambda i: (points[i].cost, -points[i].accuracy))


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A predictor and its rivals on rows that they have not seen.

    Attributes:
        predictor: What the predictor gave.
        rivals: What fixed length, gate, cascade and the models alone gave, by kind.
        mix: The random mix of fixed ways, against the predictor.
    """

    predictor: Answered
    rivals: Mapping[str, Answered]
    mix: RandomMix


@dataclass(frozen=True, kw_only=True)
class PerQuestionChoice(Choice):
    """A predictor, and what it gives on rows that it has not seen.

    ``chosen`` is measured on the rows that the price was chosen by, not on those it was learned
    from; ``best`` is the best fixed way, the teacher alone included.

    Attributes:
        goal: What was wanted.
        train_rows: How many rows it was learned from.
        choose_rows: How many its length and its price were chosen by.
        tested: Predictor and rivals on the unseen rows.
        cross_fitted: The same over all rows: each is answered by a predictor, and by rivals,
            that were made from others.
        outcomes: The sweep's outcomes.
    """

    goal: Goal
    train_rows: int
    choose_rows: int
    tested: Tested
    cross_fitted: Tested
    outcomes: OutcomeMatrix

    def __str__(self) -> str:
        """Return the choice in a few sentences."""
        mine, mix = self.tested.predictor, self.tested.mix
        low, high = mine.interval
        claim = "ahead of" if mix.is_beaten else "not surely ahead of"
        return (
            f"per question ({mine.guidance}): {mine.accuracy:.1%} right on {self.unseen_rows} "
            f"unseen rows (95% interval {low:.1%} to {high:.1%}), at {self.unseen.price} against "
            f"{self.best.price} for {self.best.guidance}, which is right on "
            f"{self.best.accuracy:.1%} of them; {claim} a random router that costs the same: "
            f"{100 * mix.gain:+.1f} points ({100 * mix.gain_interval[0]:+.1f} to "
            f"{100 * mix.gain_interval[1]:+.1f})"
        )


def choose_per_question(
    outcomes: OutcomeMatrix, goal: Goal, *, seed: int = 0, cut: Cut | Any = "word"
) -> PerQuestionChoice:
    """Learn a predictor, choose its price, and test it; see `Sweep.choose`.

    Args:
        outcomes: The outcomes.
        goal: What is wanted.
        seed: Seed of the split into three parts.
        cut: Where the chain cuts guidance.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there are too few rows, or what is needed of them was not recorded.
    """
    _refuse_poor(outcomes)
    order = shuffled(outcomes.rows, seed)
    third = len(order) // 3
    train, choose, unseen = order[:third], order[third : 2 * third], order[2 * third :]
    seen = [*train, *choose]
    length, predictor = _learned(outcomes, goal, train, choose)
    tested = _test(outcomes, goal, (length, predictor), seen, unseen)
    best = max(_fixed_points(outcomes, seen), key=lambda p: (p.accuracy, -p.cost))
    return PerQuestionChoice(
        policy=GuidancePolicy(tokens=length, cut=cut, predictor=predictor),
        max_loss=goal.max_loss,
        chosen=_apply(outcomes, length, predictor, choose).point(outcomes, length),
        unseen=tested[PREDICTOR].point(outcomes, length),
        best=outcomes.point(best.length, only=unseen),
        seen_rows=2 * third,
        unseen_rows=len(unseen),
        goal=goal,
        train_rows=third,
        choose_rows=third,
        tested=_tested(outcomes, tested, worthwhile(outcomes, seen), unseen),
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


def _fixed_points(outcomes: OutcomeMatrix, rows: Sequence[int]) -> list[OperatingPoint]:
    return [outcomes.point(n, only=rows) for n in (*outcomes.lengths, TEACHER_ALONE)]


def _learned(
    outcomes: OutcomeMatrix, goal: Goal, train: Sequence[int], choose: Sequence[int]
) -> tuple[int, Predictor]:
    """Learn predictors from one part of the rows, and choose length and price by another."""
    learned = list[tuple[int, Predictor]]()
    for length, predictor in predictors(outcomes, train).items():
        values = values_of_rows(outcomes, train, predictor.probe_tokens)
        prices = prices_to_try(predictor, values)
        if goal.price_per_point is not None:
            prices = [goal.price_per_point]
        for price in prices:
            one = replace(predictor, price_per_point=price)
            if goal.share is not None:
                rows = [*train, *choose]
                scores = [one.predict_from(outcomes.features[row]).score for row in rows]
                one = replace(one, threshold=threshold_for(scores, goal.share))
            learned.append((length, one))
    points = [_apply(outcomes, *pair, choose).point(outcomes, pair[0]) for pair in learned]
    return learned[goal.best(points, max(p.accuracy for p in _fixed_points(outcomes, choose)))]


def _apply(
    outcomes: OutcomeMatrix, length: int, predictor: Predictor, rows: Sequence[int]
) -> Answered:
    """Answer rows as a chain with this predictor would."""
    way = length, LearnedGate(predictor=predictor)
    settings = outcomes.settings_by_row(*way, rows)
    some, whole = (f"{settings.count(n) / len(rows):.0%}" for n in (length, TEACHER_ALONE))
    words = f"{length} tokens for {some}, whole answer for {whole}"
    return Answered.of(PREDICTOR, words, outcomes, way, rows)


def _test(
    outcomes: OutcomeMatrix,
    goal: Goal,
    learned: tuple[int, Predictor],
    seen: Sequence[int],
    unseen: Sequence[int],
) -> dict[str, Answered]:
    """Answer unseen rows by a predictor, and by rivals that are chosen on the seen rows."""
    answered = {PREDICTOR: _apply(outcomes, *learned, unseen)}
    most = max(point.accuracy for point in _fixed_points(outcomes, seen))
    for kind, ways in _rivals(outcomes, goal, seen).items():
        points = [outcomes.point(*way, only=seen) for way in ways]
        best = points[goal.best(points, most)]
        words = best.guidance if best.gate is None else f"{best.guidance} below {best.asks_below}"
        answered[kind] = Answered.of(kind, words, outcomes, (best.length, best.gate), unseen)
    return answered


_Way = tuple[int, Gate | None]


def _rivals(outcomes: OutcomeMatrix, goal: Goal, seen: Sequence[int]) -> dict[str, list[_Way]]:
    """Return what each rival may choose among: length and gate."""
    fixed: list[_Way] = [(length, None) for length in outcomes.lengths]
    whole: list[_Way] = [(0, None), (TEACHER_ALONE, None)]
    rivals = {"fixed length": fixed}
    if outcomes.tells_confidence:
        gates = outcomes.gates(seen)
        ungated = fixed, whole
        if goal.share is not None:
            best = outcomes.best_gate(seen, CONFIDENCE_GATES)
            scores = [outcomes.scores(best)[row] for row in seen]
            gates = [best.asking_above(threshold_for(scores, goal.share))]
            ungated = [], []
        guided: list[_Way] = [(n, gate) for gate in gates for n in outcomes.lengths if n]
        rivals["gated length"] = [*ungated[0], *guided]
        cascade: list[_Way] = [(TEACHER_ALONE, gate) for gate in gates]
        rivals["cascade of whole answers"] = [*ungated[1], *cascade]
    return {**rivals, "student alone": whole[:1], "teacher alone": whole[1:]}


def _tested(
    outcomes: OutcomeMatrix,
    answered: Mapping[str, Answered],
    hull: Sequence[int],
    rows: Sequence[int],
) -> Tested:
    fixed = [Answered.of(RANDOM, "", outcomes, (n, None), rows) for n in hull]
    rivals = {kind: one for kind, one in answered.items() if kind != PREDICTOR}
    mine = answered[PREDICTOR]
    return Tested(predictor=mine, rivals=rivals, mix=random_mix(mine, fixed))


def _cross_fit(outcomes: OutcomeMatrix, goal: Goal, order: Sequence[int]) -> Tested:
    """Answer every row by a predictor, and by rivals, that have not seen it."""
    parts = list[dict[str, Answered]]()
    folds = [order[i::_FOLDS] for i in range(_FOLDS)]
    for fold in folds:
        unseen = set(fold)
        seen = [row for row in order if row not in unseen]
        half = len(seen) // 2
        learned = _learned(outcomes, goal, seen[:half], seen[half:])
        parts.append(_test(outcomes, goal, learned, seen, fold))
    joined = {kind: Answered.joined([part[kind] for part in parts]) for kind in parts[0]}
    rows = [row for fold in folds for row in fold]
    return _tested(outcomes, joined, worthwhile(outcomes, rows), rows)
