"""Learns, chooses and tests a predictor on parts of a sweep's rows that share none."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_gkt.errors import share_number
from langchain_gkt.evaluation.results.frontier import (
    TEACHER_ALONE,
    Choice,
    OperatingPoint,
    OutcomeMatrix,
)
from langchain_gkt.evaluation.results.per_question.answered import (
    Answered,
    RandomMix,
    random_mix,
)
from langchain_gkt.evaluation.results.per_question.learning import (
    FEWEST_ROWS,
    Questions,
    predictors,
    prices_to_try,
    worthwhile,
)
from langchain_gkt.gates.calibration import threshold_for
from langchain_gkt.gates.learned import Predictor
from langchain_gkt.guidance import Cut, GuidancePolicy

_FOLDS = 5
PREDICTOR, RANDOM = "predictor", "random mix"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted of a way to answer.

    Attributes:
        max_loss: Accuracy that may be given up against the best way; the cheapest is taken.
        price_per_point: What a point of accuracy is worth, in the unit of the costs; then the way
            that is worth most after its price is taken. None to go by ``max_loss``.
        share: In how many of the questions the teacher is asked; None for any.
    """

    max_loss: float = 0.02
    price_per_point: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        price = self.price_per_point
        if not 0 <= self.max_loss < 1:
            raise ValueError(
                f"max_loss must be a share from 0 up to 1, such as 0.02, not {self.max_loss}"
            )
        number = isinstance(price, int | float) and not isinstance(price, bool)
        if price is not None and not (number and 0 < price < float("inf")):
            raise ValueError(
                "price_per_point must be a number above 0, in the unit of the sweep's costs, not "
                f"{price!r}"
            )
        if self.share is not None:
            share_number("share", self.share)

    def best(self, points: Sequence[OperatingPoint], most: float) -> int:
        """Pick one of several ways.

        Args:
            points: What they give.
            most: The accuracy of the best way there is.

        Returns:
            Its number.
        """
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
        ways: The sweep's outcomes.
    """

    goal: Goal
    train_rows: int
    choose_rows: int
    tested: Tested
    cross_fitted: Tested
    ways: OutcomeMatrix

    def __str__(self) -> str:
        """Return the choice in a few sentences."""
        found, mix = self.tested.predictor, self.tested.mix
        low, high = found.interval
        claim = "ahead of" if mix.is_beaten else "not surely ahead of"
        return (
            f"per question ({found.guidance}): {found.accuracy:.1%} right on {self.unseen_rows} "
            f"unseen rows (95% interval {low:.1%} to {high:.1%}), at {self.unseen.price} against "
            f"{self.best.price} for {self.best.guidance}, which is right on "
            f"{self.best.accuracy:.1%} of them; {claim} a random router that costs the same: "
            f"{100 * mix.gain:+.1f} points ({100 * mix.gain_interval[0]:+.1f} to "
            f"{100 * mix.gain_interval[1]:+.1f})"
        )


def choose_per_question(
    ways: OutcomeMatrix, goal: Goal, *, seed: int = 0, cut: Cut | Any = "word"
) -> PerQuestionChoice:
    """Learn a predictor, choose its price, and test it; see `Sweep.choose`.

    Args:
        ways: The outcomes.
        goal: What is wanted.
        seed: Seed of the split into three parts.
        cut: Where the chain cuts guidance.

    Returns:
        The choice.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there are too few rows, or what is needed of them was not recorded.
    """
    _refuse_poor(ways)
    questions = Questions(ways)
    # By key, so that rows added later do not move all others.
    order = sorted(range(len(ways.rows)), key=lambda i: ways.rows[i])
    random.Random(seed).shuffle(order)
    third = len(order) // 3
    train, choose, unseen = order[:third], order[third : 2 * third], order[2 * third :]
    length, predictor = _learned(questions, goal, train, choose)
    tested = _test(questions, goal, (length, predictor), [*train, *choose], unseen)
    hull = worthwhile(ways, [*train, *choose])
    best = max(
        (ways.point(n, only=[*train, *choose]) for n in (*ways.lengths, TEACHER_ALONE)),
        key=lambda p: (p.accuracy, -p.cost),
    )
    return PerQuestionChoice(
        policy=GuidancePolicy(tokens=length, cut=cut, predictor=predictor),
        max_loss=goal.max_loss,
        chosen=_apply(questions, length, predictor, choose).point(ways, length),
        unseen=tested[PREDICTOR].point(ways, length),
        best=ways.point(best.length, only=unseen),
        seen_rows=2 * third,
        unseen_rows=len(unseen),
        goal=goal,
        train_rows=third,
        choose_rows=third,
        tested=_tested(ways, tested, hull, unseen),
        cross_fitted=_cross_fit(questions, goal, order),
        ways=ways,
    )


def _refuse_poor(ways: OutcomeMatrix) -> None:
    if len(ways.rows) < FEWEST_ROWS:
        raise ValueError(
            f"predictor=True needs {FEWEST_ROWS} rows, a third each to learn from, to choose by "
            f"and to test on, and there are {len(ways.rows)}; sweep over more"
        )
    if not any(ways.lengths):
        raise ValueError(
            "predictor=True needs guidance of some length, and only 0 was answered in every row; "
            "give sweep() lengths of 1 or more, or call it again with the same out= to go on"
        )
    if not ways.questions:
        raise ValueError(
            "predictor=True needs the questions of the rows, which these outcomes do not hold; "
            "call sweep() again with the same out="
        )


def _learned(
    questions: Questions, goal: Goal, train: Sequence[int], choose: Sequence[int]
) -> tuple[int, Predictor]:
    """Learn predictors from one part of the rows, and choose length and price by another."""
    ways, found = questions.ways, list[tuple[int, Predictor]]()
    for length, predictor in predictors(questions, train).items():
        values = questions.values(train, predictor.probe_tokens)
        prices = prices_to_try(predictor, values)
        if goal.price_per_point is not None:
            prices = [goal.price_per_point]
        for price in prices:
            one = replace(predictor, price_per_point=price)
            if goal.share is not None:
                rows = [*train, *choose]
                scores = [one.predict(*_asked(questions, row)).score for row in rows]
                one = replace(one, threshold=threshold_for(scores, goal.share))
            found.append((length, one))
    points = [_apply(questions, *one, choose).point(ways, one[0]) for one in found]
    fixed = (ways.point(n, only=choose) for n in (*ways.lengths, TEACHER_ALONE))
    return found[goal.best(points, max(p.accuracy for p in fixed))]


def _asked(questions: Questions, row: int) -> tuple[str, Any]:
    return questions.ways.questions[row], questions.first_tokens[row]


def _apply(
    questions: Questions, length: int, predictor: Predictor, rows: Sequence[int]
) -> Answered:
    """Answer rows as a chain with this predictor would."""
    lengths = {"none": 0, "some": length, "all": TEACHER_ALONE}
    chosen = [predictor.predict(*_asked(questions, row)).amount for row in rows]
    some, whole = (f"{chosen.count(n) / len(rows):.0%}" for n in ("some", "all"))
    return Answered.of(
        PREDICTOR,
        f"{length} tokens for {some}, whole answer for {whole}",
        questions.ways,
        [(row, lengths[amount]) for row, amount in zip(rows, chosen, strict=True)],
    )


def _test(
    questions: Questions,
    goal: Goal,
    learned: tuple[int, Predictor],
    seen: Sequence[int],
    unseen: Sequence[int],
) -> dict[str, Answered]:
    """Answer unseen rows by a predictor, and by rivals that are chosen on the seen rows."""
    ways = questions.ways
    found = {PREDICTOR: _apply(questions, *learned, unseen)}
    for kind, ways_of_kind in _rivals(ways, goal, seen).items():
        fixed = [ways.point(n, only=seen) for n in (*ways.lengths, TEACHER_ALONE)]
        points = [ways.point(*way, only=seen) for way in ways_of_kind]
        length, ask, probe = ways_of_kind[goal.best(points, max(point.accuracy for point in fixed))]
        point = ways.point(length, ask, probe, only=unseen)
        words = point.guidance if ask is None else f"{point.guidance} below {point.gate}"
        lengths = [(row, length if ways.asks(row, length, ask, probe) else 0) for row in unseen]
        found[kind] = Answered.of(kind, words, ways, lengths)
    return found


_Way = tuple[int, float | None, int]


def _rivals(ways: OutcomeMatrix, goal: Goal, seen: Sequence[int]) -> dict[str, list[_Way]]:
    """Return what each rival may choose among: length, gate, and tokens that it looks at."""
    fixed: list[_Way] = [(n, None, 1) for n in ways.lengths]
    whole: list[_Way] = [(0, None, 1), (TEACHER_ALONE, None, 1)]
    found = {"fixed length": fixed}
    if ways.tells_confidence:
        probe, thresholds = ways.gates(seen)
        if goal.share is not None:
            # Negated, because a gate asks below its threshold.
            scores = [-ways.confidences[probe][row] for row in seen]
            thresholds = [-threshold_for(scores, goal.share)]
        gated: list[_Way] = [(n, ask, probe) for ask in thresholds for n in ways.lengths if n]
        cascade: list[_Way] = [(TEACHER_ALONE, ask, probe) for ask in thresholds]
        others = ([], []) if goal.share is not None else (fixed, whole)
        found["gated length"] = [*others[0], *gated]
        found["cascade of whole answers"] = [*others[1], *cascade]
    return {**found, "student alone": whole[:1], "teacher alone": whole[1:]}


def _tested(
    ways: OutcomeMatrix,
    found: Mapping[str, Answered],
    hull: Sequence[int],
    rows: Sequence[int],
) -> Tested:
    fixed = [Answered.of(RANDOM, "", ways, [(row, n) for row in rows]) for n in hull]
    rivals = {kind: one for kind, one in found.items() if kind != PREDICTOR}
    return Tested(
        predictor=found[PREDICTOR], rivals=rivals, mix=random_mix(found[PREDICTOR], fixed)
    )


def _cross_fit(questions: Questions, goal: Goal, order: Sequence[int]) -> Tested:
    """Answer every row by a predictor, and by rivals, that have not seen it."""
    ways, parts = questions.ways, list[dict[str, Answered]]()
    folds = [order[i::_FOLDS] for i in range(_FOLDS)]
    for fold in folds:
        unseen = set(fold)
        seen = [row for row in order if row not in unseen]
        half = len(seen) // 2
        learned = _learned(questions, goal, seen[:half], seen[half:])
        parts.append(_test(questions, goal, learned, seen, fold))
    joined = {kind: Answered.joined([part[kind] for part in parts]) for kind in parts[0]}
    rows = [row for fold in folds for row in fold]
    return _tested(ways, joined, worthwhile(ways, rows), rows)
