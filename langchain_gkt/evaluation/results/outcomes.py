"""The outcomes of every setting on the same rows, and its results with or without a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from langchain_gkt.evaluation.results.answer_table import STUDENT, TEACHER_ALONE
from langchain_gkt.evaluation.results.statistics import auc, wilson
from langchain_gkt.gates import AgreementGate, ConfidenceGate, Gate, LearnedGate, ThresholdGate
from langchain_gkt.gates.first_tokens import first_tokens_in
from langchain_gkt.gates.learned import question_signals
from langchain_gkt.modes import Amount

if TYPE_CHECKING:
    import pandas

_Gate = TypeVar("_Gate", bound=ThresholdGate)
Setting = int | str
"""Guidance tokens, with 0 for the student and `TEACHER_ALONE`. Or the name of a strategy."""
CONFIDENCE_GATES = tuple(
    ConfidenceGate(below=1.0, probe_tokens=tokens) for tokens in (1, 2, 4, 8, 16, 32)
)
"""Numbers of first tokens over which confidence is tried."""
_QUANTILES = tuple(i / 20 for i in range(1, 20))


class Outcome(NamedTuple):
    """One row's answer in a setting."""

    setting: Setting
    right: bool
    cost: float
    asked: bool


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Rows answered in a setting, all of them or where a gate asks, and the results.

    Attributes:
        length: The setting: guidance tokens, 0 for the student alone, `TEACHER_ALONE` for the
            teacher alone, a name for another strategy.
        gate: Decides whether to use the setting or the student alone. None for always.
        outcomes: The rows' answers. Costs are US dollars of a thousand, or teacher tokens of one.
        priced: Which of the two units.
        words: The guidance in words, if not a single gate made it.
    """

    length: Any
    gate: Gate | None = None
    outcomes: tuple[Outcome, ...] = field(repr=False)
    priced: bool = True
    words: str = ""

    @cached_property
    def rows(self) -> int:
        """How many rows."""
        return len(self.outcomes)

    @property
    def rights(self) -> list[bool]:
        """Which answers are right."""
        return [outcome.right for outcome in self.outcomes]

    @property
    def costs(self) -> list[float]:
        """The cost of each answer."""
        return [outcome.cost for outcome in self.outcomes]

    @cached_property
    def right(self) -> int:
        """How many answers are right."""
        return sum(self.rights)

    @cached_property
    def cost(self) -> float:
        """Mean cost."""
        return sum(self.costs) / self.rows

    @cached_property
    def asked(self) -> float:
        """Share of questions in which the teacher is asked."""
        return sum(outcome.asked for outcome in self.outcomes) / self.rows

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the accuracy, at 95%."""
        return wilson(self.right, self.rows)

    @property
    def price(self) -> str:
        """The cost, written out."""
        return written(self.cost, self.priced)

    @property
    def guidance(self) -> str:
        """How much the teacher writes, in words."""
        if self.words or isinstance(self.length, str):
            return self.words or self.length
        if isinstance(self.gate, LearnedGate):
            settings = [outcome.setting for outcome in self.outcomes]
            some, whole = (settings.count(n) / self.rows for n in (self.length, TEACHER_ALONE))
            return f"{self.length} tokens for {some:.0%}, whole answer for {whole:.0%}"
        return {0: "none", TEACHER_ALONE: "whole answer"}.get(self.length, f"{self.length} tokens")

    @property
    def asks_below(self) -> str:
        """The confidence below which it is asked, or another gate, written out."""
        if self.gate is None or isinstance(self.gate, LearnedGate):
            return "-"
        if isinstance(self.gate, AgreementGate):
            return f"{self.gate.at_least} of {self.gate.samples} agree"
        return f"{self.gate.below:.6f}" if isinstance(self.gate, ConfidenceGate) else f"{self.gate}"

    @property
    def way(self) -> str:
        """Guidance and gate in words."""
        return self.guidance + ("" if self.asks_below == "-" else f" below {self.asks_below}")


def written(cost: float, priced: bool) -> str:
    """Write a cost out."""
    return f"{cost:.4f}" if priced else f"{cost:.1f}"


def most_accurate(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """Return the most accurate point, of several the cheapest."""
    return max(points, key=lambda point: (point.accuracy, -point.cost))


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeMatrix:
    """The same rows answered in every setting: an `answer_table`, with a column for each setting.

    Attributes:
        right: Whether the answer is right. Rows by settings.
        cost: Its cost, likewise.
        signals: Measurements of each row, by name, and the features of its question.
        priced: Whether the costs are US dollars of a thousand answers. Else they are the teacher's
            tokens.
        questions: The question of each row. Empty if unknown.
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
        """Make it from the `complete` answers of a sweep."""
        table = table[table["sample"] == 0]
        rows, priced = list(dict.fromkeys(table["row"])), bool(table["cost"].notna().all())
        price = table["teacher_prompt_tokens"] + table["teacher_completion_tokens"]
        if priced:
            price = table["cost"].astype(float) * 1000
        table = table.assign(price=price)
        wide: Any = table.pivot(index="row", columns="way", values=["right", "price"]).loc[rows]
        alone = table[table["strategy"] == STUDENT].set_index("row").loc[rows]
        signals = alone.filter(regex="^signal_").rename(columns=lambda name: name[7:])
        calls = table.groupby("way", sort=False)["teacher_calls"].sum()
        return cls(
            right=wide["right"].astype(bool),
            cost=wide["price"].astype(float),
            signals=[
                {str(name): value for name, value in line.items() if value == value}
                for line in signals.to_dict("records")
            ],
            priced=priced,
            questions=[questions[row] for row in rows] if questions else (),
            unasked=frozenset(
                {0, *(n for n, count in calls.items() if isinstance(n, str) and not count)}
            ),
        )

    @property
    def rows(self) -> list[str]:
        """The rows' keys."""
        return list(self.right.index)

    @property
    def settings(self) -> list[Any]:
        """The settings: guidance lengths upwards, other strategies, and the teacher alone."""
        return [*self.lengths, *(n for n in self.right if isinstance(n, str)), TEACHER_ALONE]

    @cached_property
    def lengths(self) -> list[int]:
        """The guidance lengths, 0 included."""
        every: list[Any] = list(self.right)
        return sorted(n for n in every if not isinstance(n, str) and n != TEACHER_ALONE)

    def has_signal(self, name: str) -> bool:
        """Return whether every row has the signal."""
        return bool(self.signals) and all(name in signals for signals in self.signals)

    @property
    def tells_confidence(self) -> bool:
        """Whether the student reported its confidence."""
        return self.has_signal("probability_1")

    @property
    def price_name(self) -> str:
        """The unit of the costs."""
        return "$ per 1,000 answers" if self.priced else "teacher tokens per answer"

    @cached_property
    def features(self) -> Sequence[Mapping[str, float]]:
        """A gate's inputs, row by row: the signals, and the features of the question's text."""
        if not self.questions:
            return self.signals
        return [
            {**signals, **question_signals(question, first_tokens_in(signals))}
            for question, signals in zip(self.questions, self.signals, strict=True)
        ]

    @cached_property
    def _outcomes(self) -> dict[Setting, list[Outcome]]:
        every: list[Any] = list(self.right)
        return {
            n: [
                Outcome(n, bool(right), float(cost), n not in self.unasked)
                for right, cost in zip(self.right[n], self.cost[n], strict=True)
            ]
            for n in every
        }

    def point(
        self, setting: Setting, gate: Gate | None = None, *, only: Sequence[int] | None = None
    ) -> OperatingPoint:
        """Return the results of a setting where a gate asks, and the student alone elsewhere."""
        rows = range(len(self.right)) if only is None else only
        if gate is None or setting == 0:
            outcomes = [self._outcomes[setting][row] for row in rows]
        else:
            outcomes = self._gated(setting, gate, rows)
        return OperatingPoint(
            length=setting, gate=gate, outcomes=tuple(outcomes), priced=self.priced
        )

    def _gated(self, setting: Setting, gate: Gate, rows: Sequence[int]) -> list[Outcome]:
        self._require_measured(gate)
        amounts = self._amounts.setdefault(gate, {})
        for row in rows:
            if row not in amounts:
                amounts[row] = gate.decide(self.features[row])
        own = self._outcomes[0 if gate.shown_as is None else gate.shown_as]
        by_amount: dict[Amount, list[Outcome]] = {
            "none": own,
            "some": self._outcomes[setting],
            "all": self._outcomes[TEACHER_ALONE],
        }
        outcomes = [by_amount[amounts[row]][row] for row in rows]
        if gate.shown_as is None:
            return outcomes
        # The answers that it compares are paid for, even where it asks the teacher.
        return [
            outcome._replace(cost=outcome.cost + own[row].cost * outcome.asked)
            for outcome, row in zip(outcomes, rows, strict=True)
        ]

    def _require_measured(self, gate: Gate) -> None:
        """Refuse a gate whose answers to these rows were not recorded."""
        if gate.shown_as is not None and gate.shown_as not in self._outcomes:
            raise ValueError(
                f"gate={gate} has the student answer, and its answers ({gate.shown_as}) were not "
                "recorded of every row; give sweep(gates=[...]) this gate, and another folder"
            )

    def scores(self, gate: ThresholdGate) -> list[float]:
        """Return row by row how strongly a gate wants the teacher."""
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
        """Return how well a gate's score separates the student's wrong and right answers."""
        scores, alone = self.scores(gate), self._outcomes[0]
        return auc([-scores[row] for row in rows], [alone[row].right for row in rows])

    def best_gate(self, rows: Sequence[int], variants: Sequence[_Gate]) -> _Gate:
        """Return the variant of a gate whose score separates best. See `separation`."""
        return max(variants, key=lambda gate: self.separation(gate, rows))

    def gates(
        self, rows: Sequence[int], variants: Sequence[ThresholdGate] = CONFIDENCE_GATES
    ) -> list[ThresholdGate]:
        """Return a gate at thresholds that divide some rows into twentieths.

        All thresholds use one variant. With more of them, a choice would fit the rows it has seen
        and no others.
        """
        best = self.best_gate(rows, variants)
        scores = self.scores(best)
        known = sorted((scores[row] for row in rows), reverse=True)
        thresholds = {known[int(q * len(known))] for q in _QUANTILES}
        return [best.asking_above(score) for score in sorted(thresholds, reverse=True)]
