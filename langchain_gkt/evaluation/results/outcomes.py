"""Every setting's outcomes on the same rows, what each would give, and their frontiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_gkt.evaluation.results.answer_table import STUDENT, TEACHER_ALONE, settings_of
from langchain_gkt.evaluation.results.statistics import auc, wilson
from langchain_gkt.gates import AgreementGate, ConfidenceGate, Gate, ThresholdGate
from langchain_gkt.gates.first_tokens import first_tokens_in
from langchain_gkt.gates.learned import question_signals
from langchain_gkt.modes import Amount

if TYPE_CHECKING:
    import pandas

_Gate = TypeVar("_Gate", bound=ThresholdGate)
Setting = int | str
"""Guidance tokens, with 0 for the student and `TEACHER_ALONE`; or the name of a strategy."""
CONFIDENCE_GATES = tuple(
    ConfidenceGate(below=1.0, probe_tokens=tokens) for tokens in (1, 2, 4, 8, 16, 32)
)
"""Numbers of first tokens that confidence is tried over."""
_QUANTILES = tuple(i / 20 for i in range(1, 20))


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A setting, with or without a gate, and what it gives.

    Attributes:
        length: Guidance tokens; 0 for the student alone, `TEACHER_ALONE` for the teacher alone,
            a name for another strategy.
        gate: What decides whether that is asked, or the student answers alone; None for always.
        right: How many answers are right.
        rows: Of how many.
        cost: Price of a thousand answers in US dollars, or teacher tokens of one.
        price: The same, written out.
        asked: Share of questions in which the teacher is asked.
        words: How much the teacher writes, if it is not the same for all questions.
    """

    length: Any
    gate: Gate | None = None
    right: int
    rows: int
    cost: float
    price: str
    asked: float
    words: str = ""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the accuracy, at 95%."""
        return wilson(self.right, self.rows)

    @property
    def guidance(self) -> str:
        """How much the teacher writes, in words."""
        if self.words or isinstance(self.length, str):
            return self.words or self.length
        return {0: "none", TEACHER_ALONE: "whole answer"}.get(self.length, f"{self.length} tokens")

    @property
    def asks_below(self) -> str:
        """Below which confidence it is asked, or by which other gate, written out."""
        if self.gate is None:
            return "-"
        if isinstance(self.gate, AgreementGate):
            return f"{self.gate.at_least} of {self.gate.samples} agree"
        return f"{self.gate.below:.6f}" if isinstance(self.gate, ConfidenceGate) else f"{self.gate}"


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeMatrix:
    """The same rows answered in every setting: an `answer_table`, with a column for each setting.

    Attributes:
        right: Whether the answer is right; rows by settings.
        cost: What it costs, likewise.
        signals: What was measured of each row, by name, and the features of its question.
        priced: Whether the costs are US dollars of a thousand answers; else they are the teacher's
            tokens.
        questions: What is asked, row by row; empty if unknown.
        unasked: Settings in which the teacher is asked nothing.
    """

    right: pandas.DataFrame
    cost: pandas.DataFrame
    signals: Sequence[Mapping[str, float]] = ()
    priced: bool = True
    questions: Sequence[str] = ()
    unasked: frozenset[Setting] = frozenset({0})
    _amounts: dict[Gate, dict[int, Amount]] = field(default_factory=dict, init=False, repr=False)
    _scores: dict[Gate, list[float]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls, table: pandas.DataFrame, questions: Mapping[str, str] | None = None
    ) -> OutcomeMatrix:
        """Make it from an `answer_table` of rows that are answered in every setting."""
        table = table[table["sample"] == 0]
        rows, priced = list(dict.fromkeys(table["row"])), bool(table["cost"].notna().all())
        price = table["teacher_prompt_tokens"] + table["teacher_completion_tokens"]
        if priced:
            price = table["cost"].astype(float) * 1000
        table = table.assign(setting=settings_of(table), price=price)
        wide: Any = table.pivot(index="row", columns="setting", values=["right", "price"]).loc[rows]
        alone = table[table["strategy"] == STUDENT].set_index("row").loc[rows]
        signals = alone[[name for name in map(str, alone) if name.startswith("signal_")]]
        signals = signals.rename(columns=lambda name: name.removeprefix("signal_"))
        measured = [
            {str(name): value for name, value in line.items() if value == value}
            for line in signals.to_dict("records")
        ]
        calls = table.groupby("setting", sort=False)["teacher_calls"].sum()
        return cls(
            right=wide["right"].astype(bool),
            cost=wide["price"].astype(float),
            signals=measured,
            priced=priced,
            questions=[questions[row] for row in rows] if questions else (),
            unasked=frozenset(
                {0, *(n for n, calls in calls.items() if isinstance(n, str) and not calls)}
            ),
        )

    @property
    def rows(self) -> list[str]:
        """The rows' keys."""
        return list(self.right.index)

    @property
    def settings(self) -> list[Any]:
        """The settings: guidance lengths upwards, other strategies, and the teacher alone."""
        others = [one for one in self.right if isinstance(one, str)]
        return [*self.lengths, *others, TEACHER_ALONE]

    @property
    def lengths(self) -> list[int]:
        """The guidance lengths, 0 included."""
        return sorted(n for n in self._arrays if not isinstance(n, str) and n != TEACHER_ALONE)

    def has_signal(self, name: str) -> bool:
        """Return whether it was measured of every row."""
        return bool(self.signals) and all(name in signals for signals in self.signals)

    @property
    def tells_confidence(self) -> bool:
        """Whether the student reported how sure it was."""
        return self.has_signal("probability_1")

    @property
    def price_name(self) -> str:
        """What costs are counted in."""
        return "$ per 1,000 answers" if self.priced else "teacher tokens per answer"

    def written(self, cost: float) -> str:
        """Write a price out."""
        return f"{cost:.4f}" if self.priced else f"{cost:.1f}"

    @cached_property
    def features(self) -> Sequence[Mapping[str, float]]:
        """All that a gate looks at, row by row: the signals, and what the question's text tells."""
        if not self.questions:
            return self.signals
        return [
            {**signals, **question_signals(question, first_tokens_in(signals))}
            for question, signals in zip(self.questions, self.signals, strict=True)
        ]

    @cached_property
    def _arrays(self) -> dict[Setting, tuple[Any, Any]]:
        every: list[Any] = list(self.right)
        return {n: (self.right[n].to_numpy(), self.cost[n].to_numpy()) for n in every}

    def settings_by_row(
        self, setting: Setting, gate: Gate | None, rows: Sequence[int]
    ) -> list[Setting]:
        """Return in which setting rows are answered where a gate decides; None for always."""
        if gate is None or setting == 0:
            return [setting] * len(rows)
        self._require_measured(gate)
        known = self._amounts.setdefault(gate, {})
        for row in rows:
            if row not in known:
                known[row] = gate.decide(self.features[row])
        alone: Setting = 0 if gate.shown_as is None else gate.shown_as
        settings: dict[Amount, Setting] = {"none": alone, "some": setting, "all": TEACHER_ALONE}
        return [settings[known[row]] for row in rows]

    def _require_measured(self, gate: Gate) -> None:
        """Refuse a gate whose answers to these rows were not recorded."""
        if gate.shown_as is not None and gate.shown_as not in self._arrays:
            raise ValueError(
                f"gate={gate} has the student answer, and its answers ({gate.shown_as}) were not "
                "recorded of every row; give sweep(gates=[...]) this gate, and another folder"
            )

    def answered(
        self, setting: Setting, gate: Gate | None, rows: Sequence[int]
    ) -> tuple[list[bool], list[float], list[bool]]:
        """Return row by row what is right, what it costs, and whether the teacher is asked."""
        settings = self.settings_by_row(setting, gate, rows)
        cells = [(self._arrays[one], row) for one, row in zip(settings, rows, strict=True)]
        right = [bool(arrays[0][row]) for arrays, row in cells]
        cost = [float(arrays[1][row]) for arrays, row in cells]
        asked = [n not in self.unasked for n in settings]
        if gate is None or setting == 0 or gate.shown_as is None:
            return right, cost, asked
        # The answers that it looks at are paid for, also where the teacher is asked.
        looked = self._arrays[gate.shown_as][1]
        cost = [c + float(looked[r]) * a for c, r, a in zip(cost, rows, asked, strict=True)]
        return right, cost, asked

    def point(
        self, setting: Setting, gate: Gate | None = None, *, only: Sequence[int] | None = None
    ) -> OperatingPoint:
        """Work out what a setting gives where a gate asks, and the student alone elsewhere.

        Args:
            setting: The setting.
            gate: None to ask always.
            only: Numbers of the rows to look at; None for all.
        """
        rows = range(len(self.right)) if only is None else only
        right, cost, asked = self.answered(setting, gate, rows)
        mean = sum(cost) / len(rows)
        return OperatingPoint(
            length=setting,
            gate=gate,
            right=sum(right),
            rows=len(rows),
            cost=mean,
            price=self.written(mean),
            asked=sum(asked) / len(rows),
        )

    def scores(self, gate: ThresholdGate) -> list[float]:
        """Return row by row how much a gate wants the teacher."""
        if gate not in self._scores:
            self._require_measured(gate)
            try:
                self._scores[gate] = [gate.score(features) for features in self.features]
            except KeyError as error:
                raise ValueError(
                    f"gate={gate} is based on the signal {error}, which was not measured of every "
                    "row; give sweep(gates=[...]) such a gate, and another folder"
                ) from error
        return self._scores[gate]

    def separation(self, gate: ThresholdGate, rows: Sequence[int]) -> float:
        """Return how well a gate's score parts the student's wrong answers from its right ones."""
        scores, right = self.scores(gate), self._arrays[0][0]
        return auc([-scores[row] for row in rows], [right[row] for row in rows])

    def best_gate(self, rows: Sequence[int], variants: Sequence[_Gate]) -> _Gate:
        """Return the variant of a gate whose score separates best; see `separation`."""
        return max(variants, key=lambda gate: self.separation(gate, rows))

    def gates(
        self, rows: Sequence[int], variants: Sequence[ThresholdGate] = CONFIDENCE_GATES
    ) -> list[ThresholdGate]:
        """Return a gate at thresholds that divide some rows into twentieths.

        One variant is used for all thresholds: with more to choose from, a choice would fit the
        rows it has seen and no others.

        Args:
            rows: Numbers of the rows to base them on.
            variants: Gates of one kind, of which the `best_gate` is taken.
        """
        best = self.best_gate(rows, variants)
        scores = self.scores(best)
        known = sorted((scores[row] for row in rows), reverse=True)
        thresholds = {known[int(q * len(known))] for q in _QUANTILES}
        return [best.asking_above(score) for score in sorted(thresholds, reverse=True)]


def frontiers(
    outcomes: OutcomeMatrix, measured: Sequence[ThresholdGate] = ()
) -> dict[str, list[OperatingPoint]]:
    """Return each kind's points, the cheapest first, that no cheaper one of the kind beats.

    See `Sweep.frontiers`; every strategy beside the one that is swept is a kind of its own.

    Args:
        outcomes: The outcomes.
        measured: Further gates whose signals were measured.
    """
    lengths = [length for length in outcomes.lengths if length]
    points = {
        "student only": [outcomes.point(0)],
        "fixed length": _unbeaten(outcomes.point(n) for n in lengths),
    }
    if outcomes.tells_confidence:
        gates = outcomes.gates(range(len(outcomes.rows)))
        points["gated"] = _unbeaten(outcomes.point(TEACHER_ALONE, gate) for gate in gates)
        points["both"] = _unbeaten(outcomes.point(n, gate) for n in lengths for gate in gates)
    for one in measured:
        variants = outcomes.gates(range(len(outcomes.rows)), [one])
        points[one.kind] = _unbeaten(outcomes.point(TEACHER_ALONE, gate) for gate in variants)
    for setting in outcomes.settings:
        if isinstance(setting, str):
            points[setting] = [outcomes.point(setting)]
    return {**points, "teacher only": [outcomes.point(TEACHER_ALONE)]}


def random_router(outcomes: OutcomeMatrix, cost: float) -> float:
    """Return the accuracy of drawing lots between the student and the teacher alone.

    Args:
        outcomes: The outcomes.
        cost: What it may cost; outside of what the two cost, the nearer one answers all.
    """
    student, teacher = outcomes.point(0), outcomes.point(TEACHER_ALONE)
    span = teacher.cost - student.cost
    share = min(1.0, max(0.0, (cost - student.cost) / span)) if span else 1.0
    return student.accuracy + share * (teacher.accuracy - student.accuracy)


def _unbeaten(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Keep the points that are more accurate than every cheaper one."""
    kept: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept
