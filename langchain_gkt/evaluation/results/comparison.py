"""What a comparison found: answers of several strategies to the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results.answer_table import STUDENT, TEACHER, answer_table
from langchain_gkt.evaluation.results.base import (
    EvaluationResult,
    dollars,
    duration,
    percent,
    share,
)
from langchain_gkt.evaluation.results.statistics import (
    PairedTest,
    Ratio,
    bootstrap_ratio,
    mcnemar,
)
from langchain_gkt.evaluation.results.summary import Summary, summarise
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.reporting.charts import COLOURS, BarPanel, StackedBar, bar_panels, stacked_bars
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_TIMES = {
    "waiting for the teacher": "#0072B2",
    "student: to its first token": "#F0E442",
    "student: its other tokens": "#E69F00",
}


@dataclass(frozen=True, kw_only=True)
class Comparison(EvaluationResult):
    """What `compare` found; ``print`` shows the table.

    Attributes:
        summaries: Sums by strategy, over the rows that every strategy has answered.
        pairs: Each strategy of two models compared with each model alone, row by row.
        common: Keys of the rows that every strategy has answered.
    """

    summaries: dict[str, Summary] = field(default_factory=dict)
    pairs: tuple[PairedTest, ...] = ()
    common: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: RunStore) -> Comparison:
        """Make a comparison from what a run wrote down; no model is called."""
        answers, failures = cls.read(folder)
        groups = _by_strategy(answer_table(answers))
        named = dict.fromkeys([*folder.manifest["settings"]["modes"], *groups])
        order = [mode for mode in named if mode in groups]
        every = [set(groups[mode]["row"]) for mode in order]
        rows = set(folder.manifest["rows"]).intersection(*every)
        common = {m: groups[m][groups[m]["row"].isin(rows)] for m in order if rows}
        right = {mode: table.set_index("row")["right"] for mode, table in common.items()}
        pairs = [
            mcnemar(right[mode].tolist(), right[alone][right[mode].index].tolist(), (mode, alone))
            for mode in common
            for alone in (STUDENT, TEACHER)
            if mode not in (STUDENT, TEACHER) and alone in common
        ]
        return cls(
            folder=folder,
            answers=tuple(answers),
            failures=failures,
            summaries={mode: summarise(table) for mode, table in common.items()},
            pairs=tuple(pairs),
            common=frozenset(rows),
        )

    def _common(self) -> dict[str, pandas.DataFrame]:
        groups = _by_strategy(self.frame[self.frame["row"].isin(self.common)])
        return {mode: groups[mode] for mode in self.summaries}

    def table(self) -> Table:
        """Return the table: one line for each measure, one column for each strategy."""
        every = list(self.summaries.values())
        names = list(every[0].metrics) if every else []
        teacher_cost = self.summaries[TEACHER].cost if TEACHER in self.summaries else None

        def against(one: Summary) -> str:
            if one.cost is None or not teacher_cost:
                return "?"
            return percent(float(one.cost / teacher_cost))

        def leak(one: Summary) -> str:
            return "-" if one.length is None else percent(one.leaked)

        lines: list[tuple[str, list[str]]] = [
            ("accuracy (95%)", [share(s.accuracy, s.interval) for s in every]),
            *((f"  {n}", [percent(s.metrics[n]) for s in every]) for n in names),
            ("unparsed", [percent(s.unparsed) for s in every]),
            ("guidance holds the answer", [leak(s) for s in every]),
            ("teacher asked", [percent(s.asked) for s in every]),
            ("teacher prompt tokens", [f"{s.teacher.prompt_tokens:,}" for s in every]),
            ("teacher completion tokens", [f"{s.teacher.completion_tokens:,}" for s in every]),
            ("student prompt tokens", [f"{s.student.prompt_tokens:,}" for s in every]),
            ("student completion tokens", [f"{s.student.completion_tokens:,}" for s in every]),
            ("cost: teacher's prompts", [dollars(s.teacher.prompt_cost) for s in every]),
            ("cost: teacher's completions", [dollars(s.teacher.completion_cost) for s in every]),
            ("cost in all", [dollars(s.cost) for s in every]),
            ("cost against teacher", [against(s) for s in every]),
            ("wall time", [f"{s.wall_seconds:.1f} s" for s in every]),
            ("tokens per second", [f"{s.tokens_per_second:.1f}" for s in every]),
            ("seconds per answer (median)", [f"{s.seconds:.2f}" for s in every]),
            ("time to first token (median)", [duration(s.first_token_seconds) for s in every]),
        ]
        return Table(
            title=f"{self.task_name}: {every[0].rows if every else 0} questions",
            head=["", *(s.mode for s in every)],
            rows=[[name, *cells] for name, cells in lines] if every else [],
            notes=[*map(str, self.pairs), *self.notes(), *self._cost_notes()],
        )

    def cost_ratio(
        self, *, strategy: str | None = None, confidence: float = 0.95, seed: int = 0
    ) -> Ratio | None:
        """Return the cost of the guided answers over that of the teacher's own.

        Args:
            strategy: Whose cost; None for the first that is not one model alone.
            confidence: Level of the interval.
            seed: Seed of the bootstrap over questions.

        Returns:
            The ratio with its interval; None if one of the strategies is missing, a cost is
            unknown, or the teacher cost nothing.
        """
        groups = self._common()
        both = [mode for mode in groups if mode not in (STUDENT, TEACHER)]
        strategy = strategy or next(iter(both), None)
        if strategy not in groups or TEACHER not in groups:
            return None
        costs = [groups[mode].set_index("row")["cost"] for mode in (strategy, TEACHER)]
        if any(column.isna().any() for column in costs) or not sum(costs[1]):
            return None
        paid, alone = (column.astype(float) for column in costs)
        pairs = list(zip(paid, alone.reindex(paid.index), strict=True))
        return bootstrap_ratio(pairs, confidence=confidence, seed=seed)

    def notes(self) -> list[str]:
        """Return what the table's numbers do not include, and what the teacher was shown."""
        notes = super().notes()
        if self.manifest["settings"]["chain"].get("teacher_prompt"):
            both = [mode for mode in self.summaries if mode not in (STUDENT, TEACHER)]
            notes.append(
                f"{' and '.join(both)}: the teacher was shown a prompt of its own; the teacher "
                "alone read the whole conversation"
            )
        return notes

    def _cost_notes(self) -> list[str]:
        if not any(one.cost is None for one in self.summaries.values()):
            return []
        return [
            "cost: unknown where a model has no known price (give teacher_price=), or never told "
            "its usage"
        ]

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy and price by strategy, and where the time goes, by file name.

        Raises:
            ImportError: If matplotlib is missing.
        """
        if not self.summaries:
            return {}
        bars = [
            StackedBar(name=mode, parts=list(parts.values()), estimated=None)
            for mode, parts in self.times().items()
        ]
        times = stacked_bars(
            bars,
            series=_TIMES,
            xlabel="seconds per answer (mean, under the run's load)",
            value_format="{:.2f} s",
            title="Where the time goes",
        )
        return {"modes": _accuracy_and_price(self.summaries), "time": times}

    def times(self) -> dict[str, dict[str, float]]:
        """Return how the time of an answer is spent, in mean seconds.

        Returns:
            By strategy: ``teacher`` (waiting for it), ``prefill`` (to the student's first token)
            and ``decode`` (the student's other tokens).
        """
        times = {}
        for mode, table in self._common().items():
            first = table["student_first_token_seconds"].fillna(0.0)
            times[mode] = {
                "teacher": float(table["teacher_seconds"].mean()),
                "prefill": float(first.mean()),
                "decode": float((table["student_seconds"] - first).clip(lower=0.0).mean()),
            }
        return times


def _by_strategy(table: pandas.DataFrame) -> dict[Any, pandas.DataFrame]:
    return dict(iter(table.groupby("strategy", sort=False)))


def _accuracy_and_price(summaries: Mapping[str, Summary]) -> Figure:
    """Draw the accuracy, and what the teacher costs per answer, its prompts apart."""
    every = list(summaries.values())
    others = cycle(COLOURS[2:])
    ends: dict[str, str] = {TEACHER: COLOURS[0], STUDENT: COLOURS[1]}
    colours = [ends.get(mode) or next(others) for mode in summaries]
    accuracy = [one.accuracy for one in every]
    errors = [
        [one.accuracy - one.interval[0] for one in every],
        [one.interval[1] - one.accuracy for one in every],
    ]
    priced = all(one.teacher.cost is not None for one in every)

    def each(name: str) -> list[float]:
        if priced:
            money = [float(getattr(one.teacher, f"{name}_cost") or 0) for one in every]
            return [1000 * cost / one.rows for cost, one in zip(money, every, strict=True)]
        return [getattr(one.teacher, f"{name}_tokens") / one.rows for one in every]

    panels = [
        BarPanel(
            title=f"Accuracy, {every[0].rows} questions (95%)",
            layers=[(accuracy, 1.0)],
            errors=errors,
        ),
        BarPanel(
            title="The teacher's price (pale: its prompts)",
            layers=[(each("prompt"), 0.45), (each("completion"), 1.0)],
            ylabel="$ per 1,000 answers" if priced else "teacher tokens per answer",
        ),
    ]
    return bar_panels(list(summaries), colours, panels)
