"""Sweeps of several policies side by side, and the choice among all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.evaluation.results import cells
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.any_way import AnyWayChoice, check_max_bill, choose_any_way
from langchain_gkt.evaluation.results.base import EvaluationResult
from langchain_gkt.evaluation.results.charts import frontier_chart
from langchain_gkt.evaluation.results.choice import FEWEST, Choice, halves
from langchain_gkt.evaluation.results.outcomes import OperatingPoint
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.evaluation.results.sweep_result import Sweep
from langchain_gkt.evaluation.running.records import Answer, AnswerKey
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.gates import ThresholdGate
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class PolicyChoice:
    """The cheapest way to answer within a stated loss, among several policies.

    Attributes:
        name: The policy's name.
        choice: The length, and its results on unseen rows. Its ``best`` is the best length of all
            policies.
        best_name: The policy of this best length.
        teacher: The teacher alone on the whole conversation, on the unseen rows. None if no
            policy shows it.
    """

    name: str
    choice: Choice
    best_name: str
    teacher: OperatingPoint | None = None

    @property
    def kept(self) -> float | None:
        """Accuracy on the unseen rows, as a share of that teacher's. None if unknown or zero."""
        if self.teacher is None or not self.teacher.right:
            return None
        return self.choice.unseen.accuracy / self.teacher.accuracy

    @property
    def bill(self) -> float | None:
        """Price of the unseen rows, as a share of that teacher's. None if unknown or zero."""
        if self.teacher is None or not self.teacher.cost:
            return None
        return self.choice.unseen.cost / self.teacher.cost

    @property
    def policy(self) -> GuidancePolicy:
        """The chain's ``guidance``. `GuidancePolicy.save` writes it to a file."""
        return self.choice.policy

    def __str__(self) -> str:
        """Return the choice in a few sentences."""
        text = f"{self.name}: {self.choice} (the best length is one of {self.best_name!r})"
        if self.kept is None or self.bill is None:
            return text
        return (
            f"{text}; of the teacher alone on the whole conversation: {self.kept:.1%} of its "
            f"accuracy, {self.bill:.1%} of its price"
        )

    def columns(self) -> dict[str, str]:
        """Return the table cells of the choice, by column."""
        columns = self.choice.columns()
        del columns["best length"], columns["of cost"]
        return {
            "policy": self.name,
            **columns,
            "price": self.choice.unseen.price,
            "keeps": cells.ratio(self.kept, 1),
            "pays": cells.ratio(self.bill, 1),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class PolicySweep(EvaluationResult):
    """The result of `sweep_policies`. ``print`` shows the tables.

    Attributes:
        sweeps: The sweep of each policy, over the rows that all of them have.
        max_loss: Accuracy that the report's choice may give up. See `choose`.
    """

    sweeps: Mapping[str, Sweep] = field(default_factory=dict)
    max_loss: float = 0.02

    @classmethod
    def of(cls, folder: RunStore, sweeps: Mapping[str, Sweep] | None = None) -> PolicySweep:
        """Put sweeps together, those in the folder if none are given. No model is called.

        Raises:
            FileNotFoundError: If a policy's folder is missing.
            ValueError: If no row is answered in every way.
        """
        known = dict(sweeps or {})
        sessions = folder.manifest["sessions"]
        named = [name for session in sessions for name in session.get("policies", ())]
        for name in dict.fromkeys(named):
            if name not in known and folder.path is not None and (folder.path / name).exists():
                known[name] = Sweep.of(RunStore(folder.path / name).read())
        if not known:
            raise ValueError(f"{folder.path} holds no policy's sweep yet; call the same again")
        common = set.intersection(*(set(sweep.outcomes.rows) for sweep in known.values()))
        if not common:
            raise ValueError(
                f"{folder.path or 'the run'} holds no row that every policy has answered in every "
                "way; call sweep_policies() with the same out= to go on"
            )
        for name, sweep in known.items():
            if set(sweep.outcomes.rows) != common:
                known[name] = replace(sweep, only=frozenset(common))
        return cls(folder=folder, sweeps=known)

    def in_scenario(self, scenario: BillingScenario) -> Self:
        """Return the same answers with the teacher billed by a scenario. See `repriced`."""
        sweeps = {name: sweep.in_scenario(scenario) for name, sweep in self.sweeps.items()}
        return replace(self, sweeps=sweeps)

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """The answers of all policies."""
        return tuple(answer for sweep in self.sweeps.values() for answer in sweep.answers)

    @cached_property
    def failures(self) -> Mapping[AnswerKey, str]:
        """The failures of any policy."""
        return {key: e for sweep in self.sweeps.values() for key, e in sweep.failures.items()}

    @cached_property
    def whole(self) -> str | None:
        """Name of the first policy that shows the teacher the whole conversation, or None."""
        for name, sweep in self.sweeps.items():
            if not sweep.manifest["settings"]["chain"].get("teacher_prompt"):
                return name
        return None

    @property
    def _first(self) -> Sweep:
        return next(iter(self.sweeps.values()))

    def _alone(self, rows: Sequence[int]) -> OperatingPoint | None:
        """Return the results of the teacher alone on the whole conversation, if it was shown."""
        if self.whole is None:
            return None
        return self.sweeps[self.whole].outcomes.point(TEACHER_ALONE, only=rows)

    def choose(
        self,
        *,
        max_loss: float = 0.02,
        max_bill: float | None = None,
        gate: bool | ThresholdGate = False,
        seed: int = 0,
        scenario: BillingScenario | None = None,
        **further: Any,
    ) -> PolicyChoice:
        """Choose the cheapest policy and length that is good enough, and test it on unseen rows.

        Half of the rows choose the cheapest way whose accuracy is at most ``max_loss`` below that
        of the best length of any policy. The other half tests the choice. See `Sweep.choose`.

        Args:
            max_loss: Accuracy that you may give up, such as 0.02 for two points.
            max_bill: The most that you may pay, as a share of the cost of the teacher alone on the
                whole conversation, such as 0.52. Replaces ``max_loss``: the choice is as accurate
                as the most accurate length within that cost, on the seen rows.
            gate: Whether to leave the teacher out if the student is confident, or by which gate.
            seed: Seed of the split.
            scenario: How the teacher is billed. None to keep the run's billing.
            **further: Other arguments of `Sweep.choose`.

        Returns:
            The choice.

        Raises:
            ValueError: As for `Sweep.choose`, or if nothing costs so little, or no policy shows the
                teacher the whole conversation, which ``max_bill`` needs.
        """
        if scenario is not None:
            priced = self.in_scenario(scenario)
            return priced.choose(
                max_loss=max_loss, max_bill=max_bill, gate=gate, seed=seed, **further
            )
        best = {n: sweep.choose(max_loss=0.0, seed=seed) for n, sweep in self.sweeps.items()}
        best_name = max(best, key=lambda n: (best[n].chosen.accuracy, -best[n].chosen.cost))
        most = best[best_name].chosen.accuracy
        seen, unseen = halves(self._first.outcomes.rows, seed)
        if max_bill is not None:
            max_loss = max(0.0, most - self._affordable(max_bill, seen))
        choices = {}
        for name, sweep in self.sweeps.items():
            spare = max_loss - (most - best[name].chosen.accuracy)
            if spare >= -_ROUNDING:
                loss = max(0.0, spare) + _ROUNDING if max_loss else 0.0
                choices[name] = sweep.choose(max_loss=loss, gate=gate, seed=seed, **further)
        name = min(choices, key=lambda n: (choices[n].chosen.cost, -choices[n].chosen.accuracy))
        choice = replace(choices[name], max_loss=max_loss, best=best[best_name].best)
        return PolicyChoice(
            name=name, choice=choice, best_name=best_name, teacher=self._alone(unseen)
        )

    def choose_any(
        self,
        *,
        max_loss: float = 0.02,
        max_bill: float | None = None,
        seed: int = 0,
        scenario: BillingScenario | None = None,
    ) -> AnyWayChoice:
        """Choose among every way of every policy: lengths, gates and whole answers.

        Args:
            max_loss: Accuracy that you may give up against the most accurate way.
            max_bill: As for `choose`.
            seed: As for `choose`.
            scenario: As for `choose`.

        Returns:
            The choice, beside the random router, the confidence cascade, the cheapest teacher-only
            prompt and the oracle.

        Raises:
            ValueError: If there are too few rows, an argument makes no sense, nothing costs so
                little, or no policy shows the teacher the whole conversation.
        """
        if scenario is not None:
            priced = self.in_scenario(scenario)
            return priced.choose_any(max_loss=max_loss, max_bill=max_bill, seed=seed)
        if self.whole is None:
            raise ValueError(
                "choose_any() compares with the teacher alone on the whole conversation, which no "
                "policy shows it; name one that is None"
            )
        return choose_any_way(
            {name: sweep.measured for name, sweep in self.sweeps.items()},
            max_loss=max_loss,
            max_bill=max_bill,
            seed=seed,
            whole=self.whole,
        )

    def _affordable(self, max_bill: float, seen: Sequence[int]) -> float:
        """Return the accuracy on seen rows of the best length within the bill."""
        check_max_bill(max_bill)
        alone = self._alone(seen)
        if alone is None:
            raise ValueError(
                "max_bill is a share of what the teacher alone costs on the whole conversation, "
                "which no policy shows it; name one that is None, or give max_loss"
            )
        points = [
            sweep.outcomes.point(length, only=seen)
            for sweep in self.sweeps.values()
            for length in sweep.outcomes.lengths
        ]
        limit = max_bill * alone.cost
        if not (enough := [point.accuracy for point in points if point.cost <= limit]):
            raise ValueError(f"max_bill={max_bill}: no length of any policy costs so little")
        return max(enough)

    def frontiers(self, kind: str = "fixed length") -> dict[str, list[OperatingPoint]]:
        """Return each policy's points of a kind of `Sweep.frontiers`, if it has some."""
        frontiers = {name: s.frontiers().get(kind, []) for name, s in self.sweeps.items()}
        return {name: points for name, points in frontiers.items() if points}

    def table(self) -> Table:
        """Return accuracy by guidance length and policy."""
        notes = ["teacher alone: shown what the policy shows it", *self._first.recorded_notes()]
        return self._by_length(
            "Accuracy (95%)", lambda name, summary: cells.accuracy(summary), notes
        )

    def tables(self) -> list[Table]:
        """Return accuracy, leak, costs, and the choice."""
        title = "How often the guidance holds the answer already"
        leaks = self._by_length(title, lambda name, summary: cells.leak(summary), [])
        return [self.table(), leaks, self._cost_table(), *self._choice_table()]

    def _cost_table(self) -> Table:
        whole = self.sweeps[self.whole].teacher if self.whole else None

        def cell(name: str, summary: Summary) -> str:
            own = cells.of_bill(summary, self.sweeps[name].teacher)
            return f"{cells.per_thousand(summary)} ({cells.of_bill(summary, whole)}, {own})"

        notes = [
            "in brackets: of what the teacher alone costs on the whole conversation"
            + (f" ({self.whole!r})" if whole else " (not measured: no policy shows it)")
            + ", and on what the policy shows it",
            *(f"{n}: {note}" for n, sweep in self.sweeps.items() for note in sweep.billing_notes()),
        ]
        return self._by_length("$ per 1,000 answers", cell, notes)

    def _by_length(
        self, title: str, cell: Callable[[str, Summary], str], notes: Sequence[str]
    ) -> Table:
        """Return one measure, a line for each guidance length and a column for each policy."""

        def line(label: str, sums: Mapping[str, Summary | None]) -> list[str]:
            return [label, *(cell(name, s) if s else "-" for name, s in sums.items())]

        lengths = sorted({n for sweep in self.sweeps.values() for n in sweep.by_length})
        rows = [
            line(
                f"{length} tokens" if length else "student alone",
                {name: sweep.by_length.get(length) for name, sweep in self.sweeps.items()},
            )
            for length in lengths
        ]
        alone = {name: sweep.teacher for name, sweep in self.sweeps.items()}
        return Table(
            title=f"{self.task_name}, {self._first.student.rows} questions: {title}",
            head=["guidance", *self.sweeps],
            rows=[*rows, line("teacher alone", alone)],
            notes=notes,
        )

    def choices(self) -> dict[str, PolicyChoice]:
        """Return the results of `choose` without a gate, and with one if there are confidences.

        Returns:
            Choices by ``fixed length`` and ``gated length``. None if there are too few rows.
        """
        if self._first.student.rows < FEWEST:
            return {}
        choices = {"fixed length": self.choose(max_loss=self.max_loss)}
        if all(sweep.outcomes.tells_confidence for sweep in self.sweeps.values()):
            choices["gated length"] = self.choose(max_loss=self.max_loss, gate=True)
        return choices

    def _choice_table(self) -> list[Table]:
        if not (choices := self.choices()):
            return []
        first = next(iter(choices.values())).choice
        points = 100 * self.max_loss
        return [
            Table.of(
                [{"kind": kind, **choice.columns()} for kind, choice in choices.items()],
                title=f"The cheapest within {points:g} points of the best length of any policy",
                notes=[
                    f"chosen on {first.seen_rows} rows (seen), tested on the {first.unseen_rows} "
                    "others (unseen); the more policies, the more the seen column flatters",
                    "keeps, pays: accuracy and price on the unseen rows, of those of the teacher "
                    "alone on the whole conversation",
                ],
            )
        ]

    def conclusion(self) -> list[str]:
        """Return the choices as sentences. Empty if there are too few rows."""
        return [f"{kind}: {choice}." for kind, choice in self.choices().items()]

    def to_frame(self) -> pandas.DataFrame:
        """Return the answers of all policies as one table, with a column ``policy``."""
        frames = [sweep.frame.assign(policy=name) for name, sweep in self.sweeps.items()]
        import pandas  # a sweep's frame reports it if missing

        return pandas.concat(frames, ignore_index=True)

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy against cost, a line for each policy, by file name."""
        return {"frontier": frontier_chart(self.lines(), self.price_name)}

    def lines(self) -> dict[str, list[OperatingPoint]]:
        """Return the chart's points: each policy's frontier, and each model alone."""
        lines = {**self.frontiers(), "student only": [self._first.outcomes.point(0)]}
        for name, sweep in self.sweeps.items():
            lines[f"teacher only, {name}"] = sweep.frontiers()["teacher only"]
        return lines

    @property
    def price_name(self) -> str:
        """The unit of the costs."""
        return self._first.outcomes.price_name
