"""The result of a comparison: answers of several strategies to the same questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from langchain_gkt.evaluation.results import cells
from langchain_gkt.evaluation.results.answer_table import ROLES, STUDENT, TEACHER
from langchain_gkt.evaluation.results.base import EvaluationResult
from langchain_gkt.evaluation.results.charts import accuracy_and_price_chart
from langchain_gkt.evaluation.results.statistics import PairedTest, Ratio, bootstrap_ratio, mcnemar
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.reporting.charts import StackedBar, stacked_bars
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_TIMES = {
    "waiting for the teacher": "#0072B2",
    "student: to its first token": "#F0E442",
    "student: its other tokens": "#E69F00",
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(EvaluationResult):
    """The result of `compare`. ``print`` shows the table."""

    @classmethod
    def of(cls, folder: RunStore) -> Comparison:
        """Make a comparison from the lines of a run. No model is called."""
        return cls(folder=folder)

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Sums by strategy, over the rows that every strategy has answered."""
        named = dict.fromkeys([*self.manifest["settings"]["modes"], *self.frame["strategy"]])
        return {mode: self.sums[mode] for mode in named if mode in self.sums}

    @property
    def common(self) -> frozenset[str]:
        """Keys of the rows that every strategy has answered."""
        return frozenset(self.complete["row"])

    @property
    def _of_both_models(self) -> list[str]:
        return [mode for mode in self.summaries if mode not in ROLES]

    def _wide(self, column: str) -> pandas.DataFrame:
        """Return a column of these rows' answers, with a column for each strategy."""
        rows = list(dict.fromkeys(self.complete["row"]))
        return self.complete.pivot(index="row", columns="strategy", values=column).loc[rows]

    @cached_property
    def pairs(self) -> tuple[PairedTest, ...]:
        """Each strategy of two models compared with each model alone, row by row."""
        right = self._wide("right")
        return tuple(
            mcnemar(right[mode].tolist(), right[alone].tolist(), (mode, alone))
            for mode in self._of_both_models
            for alone in (STUDENT, TEACHER)
            if alone in right
        )

    def table(self) -> Table:
        """Return the table: one line for each measure, one column for each strategy."""
        every = list(self.summaries.values())
        metrics = list(every[0].metrics) if every else []
        teacher = self.summaries.get(TEACHER)

        def metric(name: str) -> Callable[[Summary], str]:
            return lambda s: cells.percent(s.metrics[name])

        measures: dict[str, Callable[[Summary], str]] = {
            "accuracy (95%)": cells.accuracy,
            **{f"  {name}": metric(name) for name in metrics},
            "unparsed": lambda s: cells.percent(s.unparsed),
            "guidance holds the answer": cells.leak,
            "teacher asked": lambda s: cells.percent(s.asked),
            "teacher prompt tokens": lambda s: f"{s.teacher.prompt_tokens:,}",
            "teacher completion tokens": lambda s: f"{s.teacher.completion_tokens:,}",
            "student prompt tokens": lambda s: f"{s.student.prompt_tokens:,}",
            "student completion tokens": lambda s: f"{s.student.completion_tokens:,}",
            "cost: teacher's prompts": lambda s: cells.dollars(s.teacher.prompt_cost),
            "cost: teacher's completions": lambda s: cells.dollars(s.teacher.completion_cost),
            "cost in all": lambda s: cells.dollars(s.cost),
            "cost against teacher": lambda s: cells.of_bill(s, teacher),
            "wall time": lambda s: f"{s.wall_seconds:.1f} s",
            "tokens per second": lambda s: f"{s.tokens_per_second:.1f}",
            "seconds per answer (median)": lambda s: f"{s.seconds:.2f}",
            "time to first token (median)": lambda s: cells.seconds(s.first_token_seconds),
        }
        notes = [*map(str, self.pairs), *self.notes()]
        if any(s.cost is None for s in every):
            notes.append(
                "cost: unknown where a model has no known price (give teacher_price=), or never "
                "reported its usage"
            )
        return Table(
            title=f"{self.task_name}: {every[0].rows if every else 0} questions",
            head=["", *self.summaries],
            rows=[[name, *map(cell, every)] for name, cell in measures.items()] if every else [],
            notes=notes,
        )

    def cost_ratio(
        self, *, strategy: str | None = None, confidence: float = 0.95, seed: int = 0
    ) -> Ratio | None:
        """Return the cost of the guided answers over that of the teacher's own.

        Args:
            strategy: The strategy. None for the first that is not one model alone.
            confidence: Level of the interval.
            seed: Seed of the bootstrap over questions.

        Returns:
            The ratio with its interval. None if one of the strategies is missing, a cost is
            unknown, or the teacher cost nothing.
        """
        costs = self._wide("cost")
        strategy = strategy or next(iter(self._of_both_models), None)
        if strategy not in costs or TEACHER not in costs:
            return None
        both = costs[[strategy, TEACHER]]
        if both.isna().any(axis=None) or not sum(both[TEACHER]):
            return None
        pairs = list(both.astype(float).itertuples(index=False, name=None))
        return bootstrap_ratio(pairs, confidence=confidence, seed=seed)

    def conclusion(self) -> list[str]:
        """Return accuracy and bill of each strategy of two models, beside the models alone."""
        alone = ", ".join(
            f"the {role} alone {cells.percent(self.summaries[role].accuracy)}"
            for role in (TEACHER, STUDENT)
            if role in self.summaries
        )
        return [
            f"{mode}: {cells.percent(self.summaries[mode].accuracy)} right at "
            f"{cells.of_bill(self.summaries[mode], self.summaries.get(TEACHER))} of the teacher's "
            f"bill{f' ({alone})' if alone else ''}."
            for mode in self._of_both_models
        ]

    def notes(self) -> list[str]:
        """Return what the table's numbers leave out, and what the teacher was shown."""
        notes = super().notes()
        if self.manifest["settings"]["chain"].get("teacher_prompt"):
            notes.append(
                f"{' and '.join(self._of_both_models)}: the teacher was shown a prompt of its own; "
                "the teacher alone read the whole conversation"
            )
        return notes

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy and price by strategy, and where the time goes, by file name."""
        if not self.summaries:
            return {}
        times = stacked_bars(
            [
                StackedBar(name=mode, parts=list(parts.values()), estimated=None)
                for mode, parts in self.times().items()
            ],
            series=_TIMES,
            xlabel="seconds per answer (mean, under the run's load)",
            value_format="{:.2f} s",
            title="Where the time goes",
        )
        return {"modes": accuracy_and_price_chart(self.summaries), "time": times}

    def times(self) -> dict[str, dict[str, float]]:
        """Return how the time of an answer is spent, in mean seconds.

        Returns:
            By strategy: ``teacher`` (waiting for it), ``prefill`` (to the student's first token)
                and ``decode`` (the student's other tokens).
        """
        times = {}
        for mode in self.summaries:
            table = self.complete[self.complete["strategy"] == mode]
            first = table["student_first_token_seconds"].fillna(0.0)
            times[mode] = {
                "teacher": float(table["teacher_seconds"].mean()),
                "prefill": float(first.mean()),
                "decode": float((table["student_seconds"] - first).clip(lower=0.0).mean()),
            }
        return times
