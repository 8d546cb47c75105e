"""The result of a sweep: accuracy and cost by guidance length, and the choice among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.evaluation.results import cells, frontier
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE, settings_of
from langchain_gkt.evaluation.results.any_way import AnyWayChoice, Measured, choose_any_way
from langchain_gkt.evaluation.results.base import EvaluationResult
from langchain_gkt.evaluation.results.charts import accuracy_chart, frontier_chart
from langchain_gkt.evaluation.results.choice import (
    FEWEST,
    Choice,
    Goal,
    choice_tables,
    choose_among,
)
from langchain_gkt.evaluation.results.outcomes import OperatingPoint, OutcomeMatrix
from langchain_gkt.evaluation.results.per_question.choice import (
    PerQuestionChoice,
    choose_per_question,
)
from langchain_gkt.evaluation.results.per_question.tables import tables as per_question_tables
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.evaluation.running.run_settings import described, measured
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.gates import ThresholdGate
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.prompts.plain_data import kept_prompt
from langchain_gkt.reporting.table import Table
from langchain_gkt.teachers.token_cuts import CUT_METHODS

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, repr=False)
class Sweep(EvaluationResult):
    """The result of `sweep`. ``print`` shows the tables.

    Attributes:
        only: Keys of the rows to use. None for all.
        max_loss: Accuracy that the report's choice may give up. See `choose`.
        teacher_prompt: The part of the conversation that the teacher was shown. None for all of it,
            and for a function in a run that is read from its folder.
    """

    only: frozenset[str] | None = None
    max_loss: float = 0.02
    teacher_prompt: Any = None

    @classmethod
    def of(cls, folder: RunStore) -> Sweep:
        """Make a sweep from the lines of a run. No model is called.

        Raises:
            ValueError: If the run ended before any row was answered in every way.
        """
        prompt = kept_prompt(folder.manifest["settings"]["chain"].get("teacher_prompt"))
        sweep = cls(folder=folder, teacher_prompt=prompt)
        if not {0, TEACHER_ALONE} <= set(sweep.sums):
            raise ValueError(
                f"{folder.path or 'the sweep'} holds no row that is answered in every way; call "
                "sweep() with the same out= to go on"
            )
        return sweep

    def _ways(self) -> Any:
        return settings_of(self.frame)

    @cached_property
    def complete(self) -> pandas.DataFrame:
        """The answers to rows that are answered in every ``way``: length or other strategy."""
        table = super().complete
        return table if self.only is None else table[table["row"].isin(self.only)]

    @property
    def teacher(self) -> Summary:
        """Sums of the teacher alone, over the rows that are answered in every way."""
        return self.sums[TEACHER_ALONE]

    @property
    def student(self) -> Summary:
        """Sums of the student alone."""
        return self.sums[0]

    @property
    def by_length(self) -> dict[int, Summary]:
        """Sums of guided answers by guidance length, 0 (the student alone) included."""
        return {length: self.sums[length] for length in self.outcomes.lengths}

    @property
    def further(self) -> dict[str, Summary]:
        """Sums of the answers of any other strategy, by its name."""
        return {name: summary for name, summary in self.sums.items() if isinstance(name, str)}

    @cached_property
    def outcomes(self) -> OutcomeMatrix:
        """The same answers row by row, for choosing."""
        questions = zip(self.manifest["rows"], self.manifest["questions"], strict=True)
        return OutcomeMatrix.of(self.complete, dict(questions))

    @cached_property
    def methods(self) -> Mapping[str, int]:
        """How many teacher answers are cut by each method. See `CUT_METHODS`."""
        cuts = self.folder.lines_of("cut")
        return Counter({line["row"]: line["method"] for line in cuts}.values())

    @property
    def checks(self) -> tuple[dict[str, Any], ...]:
        """Guidances requested again from the teacher, and whether they equal the cut ones."""
        return tuple(self.folder.lines_of("check"))

    @cached_property
    def gates(self) -> tuple[ThresholdGate, ...]:
        """Gates that had the student answer, at some threshold."""
        return measured(self.manifest["settings"])

    def choose(
        self,
        *,
        max_loss: float = 0.02,
        max_bill: float | None = None,
        gate: bool | ThresholdGate | Literal["any"] = False,
        predictor: bool = False,
        price_per_point: float | None = None,
        share: float | None = None,
        seed: int = 0,
        scenario: BillingScenario | None = None,
    ) -> Choice:
        """Choose the cheapest guidance that is good enough, and test it on unseen rows.

        The seed splits the rows in two halves. The first half chooses the cheapest guidance length
        (with ``gate``: length and confidence threshold) whose accuracy is at most ``max_loss``
        below the best length's. The second half tests that choice.

        With ``predictor`` the rows are split in three. The first part trains a `Predictor`. The
        second chooses its length and its price. The third tests it beside fixed length, gate,
        cascade and a random router. Each question then gets no tokens, some, or all.

        With ``gate="any"`` or ``max_bill`` the choice is among every measured way: the student
        alone, each length, the whole answer, and these behind each gate. The result shows the
        random router, the confidence cascade and the oracle beside the choice.

        Args:
            max_loss: Accuracy that you may give up, such as 0.02 for two points. With ``predictor``
                against the best length or the teacher alone, with ``gate="any"`` against the most
                accurate way.
            max_bill: The most that you may pay, as a share of the cost of the teacher alone, such
                as 0.52. The most accurate way within it wins. Replaces ``max_loss``.
            gate: Whether to leave the teacher out if the student is confident, or another gate,
                whose threshold to choose. Where that one asks, the teacher may also write the whole
                answer (``ladder=(0, "all")``), and ``max_loss`` is against the best length or the
                teacher alone. If no threshold keeps it, the most accurate wins.
            predictor: Whether to learn how much guidance each question needs.
            price_per_point: With ``predictor``: the value of a point of accuracy, in the unit of
                the tables. Replaces ``max_loss``.
            share: With ``predictor``: in how many of the questions to ask, from 0 to 1.
                `GuidancePolicy.calibrate` measures it again on your own questions.
            seed: Seed of the split.
            scenario: How the teacher is billed. None to keep the run's billing.

        Returns:
            The choice. ``choice.policy.save("policy.json")`` writes it for a chain. With
            ``predictor`` it is a `PerQuestionChoice`, whose rivals are in the sweep's tables. Among
            every way it is an `AnyWayChoice`.

        Raises:
            ValueError: If there are too few rows, an argument makes no sense, or ``gate`` is set
                and the student does not report its confidence.
            ImportError: If ``predictor`` is set and scikit-learn is missing.
        """
        priced = self if scenario is None else self.in_scenario(scenario)
        if gate == "any" or max_bill is not None:
            if predictor or gate not in (False, "any"):
                raise ValueError(
                    'max_bill and gate="any" choose among every way; leave predictor and other '
                    "gates out"
                )
            return choose_any_way(
                {"": priced.measured}, max_loss=max_loss, max_bill=max_bill, seed=seed
            )
        if isinstance(gate, ThresholdGate):
            gate = self._as_measured(gate)
        if not predictor:
            for name, value in (("price_per_point", price_per_point), ("share", share)):
                if value is not None:
                    raise ValueError(f"{name} is for choose(predictor=True); give both, or neither")
            choice = choose_among(priced.outcomes, max_loss=max_loss, gate=gate, seed=seed)
        elif gate:
            raise ValueError("gate and predictor both say when to ask; give one of them")
        else:
            goal = Goal(max_loss=max_loss, price_per_point=price_per_point, share=share)
            choice = choose_per_question(priced.outcomes, goal, seed=seed)
        return replace(choice, policy=replace(choice.policy, **self._common_fields))

    @property
    def _common_fields(self) -> dict[str, Any]:
        """The fields of a policy that all ways of the sweep have in common."""
        swept = self.manifest["settings"]["chain"]["guidance"] or {}
        return {
            "cut": swept.get("cut", "word"),
            "min_tokens": swept.get("min_tokens", 0),
            "teacher_prompt": self.teacher_prompt,
        }

    @property
    def measured(self) -> Measured:
        """The measurements, for the choice among every way."""
        policy = GuidancePolicy(**self._common_fields)
        return Measured(outcomes=self.outcomes, gates=self.gates, policy=policy)

    def _as_measured(self, gate: ThresholdGate) -> ThresholdGate:
        """Return a gate that reads answers like the measured one. Refuse another of its kind."""
        known = {measured.kind: measured for measured in self.gates}.get(gate.kind)
        if known is None:
            return gate
        answer_of: Any = getattr(known, "answer_of", None)
        read: Any = gate.reading(answer_of)
        if described(read) != described(known):
            raise ValueError(
                f"gate={gate} is not the gate that was measured, {known}; give choose() that "
                "one, or measure yours with sweep(gates=[...]) into another folder"
            )
        return read  # type: ignore[no-any-return]

    def frontiers(self) -> dict[str, list[OperatingPoint]]:
        """Return the points that no cheaper one equals in accuracy, over all rows.

        Returns:
            Points by kind. ``fixed length`` has the guidance lengths. ``gated`` uses the teacher's
            whole answer if the student is unsure, ``both`` guidance of some length. Each of the
            `gates` is a kind, such as ``agreement`` (the whole answer if it asks). Any further
            strategy, by its name, ``teacher only`` and ``student only`` have one point each.
        """
        return self._frontiers

    @cached_property
    def _frontiers(self) -> dict[str, list[OperatingPoint]]:
        return frontier.frontiers(self.outcomes, self.gates)

    def table(self) -> Table:
        """Return accuracy and cost by length."""
        metrics = list(self.student.metrics)
        lengths = {str(n) if n else "0 (student alone)": s for n, s in self.by_length.items()}
        every = {**lengths, **self.further, "all (teacher alone)": self.teacher}
        full = self.teacher.teacher.completion_tokens
        return Table(
            title=f"{self.task_name}: {self.student.rows} questions",
            head=[
                *("guidance tokens", "accuracy (95%)", *metrics, "unparsed", "leak"),
                *("teacher tokens", "$ per 1,000", "of teacher", "seconds"),
            ],
            rows=[
                [
                    name,
                    cells.accuracy(summary),
                    *(cells.percent(summary.metrics[metric]) for metric in metrics),
                    cells.percent(summary.unparsed),
                    cells.leak(summary),
                    cells.ratio(summary.teacher.completion_tokens, full),
                    cells.per_thousand(summary),
                    cells.of_bill(summary, self.teacher),
                    cells.seconds(summary.seconds),
                ]
                for name, summary in every.items()
            ],
            notes=[
                "leak: how often the guidance alone contains the answer",
                "teacher tokens: share of the completion tokens of teacher-only answers; "
                "of teacher: share of their cost, prompts included; $ per 1,000: answers",
                "seconds: of an answer, median; the teacher's share of them is estimated from "
                "its whole answer",
                *(f"cut: {count} answers, {CUT_METHODS[m]}" for m, count in self.methods.items()),
                *self._check_notes(),
                *self._gate_notes(),
                *self.notes(),
            ],
        )

    def notes(self) -> list[str]:
        """Return what the tables' numbers leave out."""
        notes, total = super().notes(), len(self.manifest["rows"])
        if self.student.rows < total:
            notes.append(f"{self.student.rows} of {total} rows are answered in every way")
        if prompt := self.manifest["settings"]["chain"].get("teacher_prompt"):
            names = [step if isinstance(step, str) else step["prompt"] for step in prompt]
            notes.append(
                f"the teacher was shown a prompt of its own ({', '.join(names)}), also where it "
                "answers alone: shares of its bill are of that prompt's"
            )
            if kept_prompt(prompt) is None and self.teacher_prompt is None:
                notes.append(
                    "a file cannot hold that prompt: the policies of this report go without it, so "
                    "give the chain teacher_prompt="
                )
        return notes

    def _check_notes(self) -> list[str]:
        if not self.checks:
            return []
        same = sum(check["same"] for check in self.checks)
        cost = sum((Decimal(check["cost"]) for check in self.checks), Decimal(0))
        lengths = ", ".join(str(n) for n in sorted({c["length"] for c in self.checks}))
        return [
            f"asked again at {lengths} tokens: {same} of {len(self.checks)} guidances were the "
            f"ones that had been cut; that cost ${cost:.6f} more"
        ]

    def _gate_notes(self) -> list[str]:
        """Return what measuring took, for gates that had the student answer."""
        notes, base = [], self.student.student.completion_tokens
        for gate in self.gates:
            if (vote := self.further.get(str(gate.shown_as))) is None:
                continue
            tokens = vote.student.completion_tokens
            times = f", {tokens / base:.1f} times those of one answer" if base else ""
            notes.append(
                f"{gate.shown_as}: the student's answers by which the gate {gate.kind!r} decides; "
                f"they took {tokens / vote.rows:.0f} completion tokens of the student a question"
                f"{times}, which every answer of that gate pays for"
            )
        return notes

    def choices(self) -> dict[str, Choice]:
        """Return the results of `choose` without a gate, and with one if there are confidences.

        Returns:
            Choices by ``fixed length``, ``gated length`` and the kind of each of the `gates`. None
            if there are too few rows.
        """
        if self.student.rows < FEWEST:
            return {}
        choices = {"fixed length": self.choose(max_loss=self.max_loss)}
        if self.outcomes.tells_confidence:
            choices["gated length"] = self.choose(max_loss=self.max_loss, gate=True)
        for gate in self.gates:
            choices[gate.kind] = self.choose(max_loss=self.max_loss, gate=gate)
        return choices

    @cached_property
    def per_question(self) -> PerQuestionChoice | str:
        """The result of `choose` with a predictor, or why there is none."""
        try:
            return choose_per_question(self.outcomes, Goal(max_loss=self.max_loss))
        except (ValueError, ImportError) as error:
            return str(error)

    @cached_property
    def any_way(self) -> AnyWayChoice:
        """The result of `choose` among every way."""
        return choose_any_way({"": self.measured}, max_loss=self.max_loss)

    def conclusion(self) -> list[str]:
        """Return the choice among all ways as a sentence. Empty if there are too few rows."""
        return [self.any_way.sentence] if self.student.rows >= FEWEST else []

    def tables(self) -> list[Table]:
        """Return accuracy by length, the frontier, and the choices."""
        tables = [
            self.table(),
            frontier.frontier_table(self.outcomes, self.frontiers(), self.per_question, self.gates),
            frontier.price_table(self.outcomes, self.frontiers()),
            *choice_tables(self.choices(), self.max_loss),
        ]
        if self.student.rows >= FEWEST:
            tables.append(self.any_way.table())
        if isinstance(self.per_question, PerQuestionChoice):
            tables += per_question_tables(self.per_question)
        return tables

    def price_of(self, accuracy: float, kind: str) -> float | None:
        """Return the lowest price of an accuracy, over all rows, by a kind of `frontiers`.

        Returns:
            The price, in the unit of the tables. None if this kind is never so accurate.
        """
        return frontier.price_of(accuracy, self.frontiers().get(kind, ()))

    def goals(self) -> list[float]:
        """Return some accuracies between the student's and the best that guidance reaches."""
        return frontier.goals(self.outcomes)

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy by guidance length, and accuracy against cost, by file name."""
        return {
            "accuracy": accuracy_chart(self.by_length, self.teacher, self.further),
            "frontier": frontier_chart(self.frontiers(), self.outcomes.price_name),
        }
