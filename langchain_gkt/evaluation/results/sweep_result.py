"""What a sweep found: accuracy and cost by guidance length, and the choice among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results import charts
from langchain_gkt.evaluation.results.base import EvaluationResult, per_thousand, percent, share
from langchain_gkt.evaluation.results.choice_table import choice_tables
from langchain_gkt.evaluation.results.frontier import (
    SHOWN_POINTS,
    Choice,
    OperatingPoint,
    OutcomeMatrix,
    choose_among,
    frontiers,
    thinned,
)
from langchain_gkt.evaluation.results.per_question.choice import (
    Goal,
    PerQuestionChoice,
    choose_per_question,
)
from langchain_gkt.evaluation.results.per_question.tables import tables as per_question_tables
from langchain_gkt.evaluation.results.statistics import auc
from langchain_gkt.evaluation.results.summary import Summary, summarise
from langchain_gkt.evaluation.running.replay import CUT_METHODS
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.prompts.plain_data import kept_prompt
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = ("fixed length", "gated", "both")
_GOALS = (0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class Sweep(EvaluationResult):
    """What `sweep` found; ``print`` shows the tables.

    Attributes:
        teacher: Sums of the teacher alone, over the rows that are answered in every way.
        student: Sums of the student alone.
        by_length: Sums of guided answers by guidance length, 0 (the student alone) included.
        ways: The same answers row by row, for choosing.
        methods: How many teacher answers are cut in which way; see `CUT_METHODS`.
        checks: Guidances that the teacher was really asked for again, and whether they were the
            ones that had been cut.
        max_loss: Accuracy that the report's choice may give up; see `choose`.
        teacher_prompt: What of the conversation the teacher was shown; None for all of it, and
            for a function in a run that is read from its folder.
    """

    teacher: Summary
    student: Summary
    by_length: dict[int, Summary]
    ways: OutcomeMatrix
    methods: Mapping[str, int] = field(default_factory=dict)
    checks: tuple[dict[str, Any], ...] = ()
    max_loss: float = 0.02
    teacher_prompt: Any = None

    @classmethod
    def of(cls, folder: RunStore, *, only: Collection[str] | None = None) -> Sweep:
        """Make a sweep from what a run wrote down; no model is called.

        Args:
            folder: The run's folder.
            only: Keys of the rows to look at; None for all.

        Returns:
            The sweep.

        Raises:
            ValueError: If the run ended before any row was answered in every way.
        """
        answers, failures = cls.read(folder)
        lengths = sorted({a.length for a in answers if a.length is not None})
        by_way: dict[Any, dict[str, Any]] = {}
        for answer in answers:
            way = answer.length if answer.mode == "guided" else answer.mode
            by_way.setdefault(way, {})[answer.row] = answer
        # A length at which everything fails must not leave the others without rows.
        ways = ["teacher", "student", *lengths]
        rows = [
            row
            for row in folder.manifest["rows"]
            if all(row in by_way.get(way, {}) for way in ways) and (only is None or row in only)
        ]
        if not rows:
            raise ValueError(
                f"{folder.path or 'the sweep'} holds no row that is answered in every way; call "
                "sweep() with the same out= to go on"
            )
        found = {way: [by_way[way][row] for row in rows] for way in ways}
        student = summarise(found["student"])
        cuts = {line["row"]: line["method"] for line in folder.lines if line["type"] == "cut"}
        return cls(
            folder=folder,
            answers=tuple(answers),
            failures=failures,
            teacher=summarise(found["teacher"]),
            student=student,
            by_length={0: student, **{n: summarise(found[n]) for n in lengths}},
            ways=OutcomeMatrix.of(
                found["teacher"],
                found["student"],
                {n: found[n] for n in lengths},
                dict(zip(folder.manifest["rows"], folder.manifest["questions"], strict=True)),
            ),
            methods=Counter(cuts.values()),
            checks=tuple(line for line in folder.lines if line["type"] == "check"),
            teacher_prompt=kept_prompt(folder.manifest["settings"]["chain"].get("teacher_prompt")),
        )

    def choose(
        self,
        *,
        max_loss: float = 0.02,
        gate: bool = False,
        predictor: bool = False,
        price_per_point: float | None = None,
        share: float | None = None,
        seed: int = 0,
    ) -> Choice:
        """Choose the cheapest guidance that is good enough, and test it on unseen rows.

        The rows are split in two halves, by the seed. The first half chooses: the cheapest
        guidance length (with ``gate``: length and confidence threshold) whose accuracy is at
        most ``max_loss`` below the best length's. The second half tests that choice.

        With ``predictor`` the rows are split in three: from the first a `Predictor` is learned,
        the second chooses its length and its price, the third tests it beside fixed length,
        gate, cascade and a random router. Each question then gets no tokens, some, or all.

        Args:
            max_loss: Accuracy that may be given up, such as 0.02 for two points; with
                ``predictor`` against the best length or the teacher alone.
            gate: Whether the teacher may be left out if the student is sure.
            predictor: Whether to learn how much guidance each question needs.
            price_per_point: With ``predictor``: what a point of accuracy is worth, in the unit of
                the tables; it takes the place of ``max_loss``.
            share: With ``predictor``: in how many of the questions to ask, from 0 to 1;
                `GuidancePolicy.calibrate` takes it again of your own questions.
            seed: Seed of the split.

        Returns:
            The choice; ``choice.policy.save("policy.json")`` writes it for a chain. With
            ``predictor`` it is a `PerQuestionChoice`, whose rivals are in the sweep's tables.

        Raises:
            ValueError: If there are too few rows, an argument makes no sense, or ``gate`` is
                wanted and the student does not tell its confidence.
            ImportError: If ``predictor`` is wanted and scikit-learn is missing.
        """
        swept = self.manifest["settings"]["chain"]["guidance"] or {}
        cut = swept.get("cut", "word")
        if not predictor:
            for name, value in (("price_per_point", price_per_point), ("share", share)):
                if value is not None:
                    raise ValueError(f"{name} is for choose(predictor=True); give both, or neither")
            choice = choose_among(self.ways, max_loss=max_loss, gate=gate, seed=seed, cut=cut)
        elif gate:
            raise ValueError("gate and predictor both say when to ask; give one of them")
        else:
            goal = Goal(max_loss=max_loss, price_per_point=price_per_point, share=share)
            choice = choose_per_question(self.ways, goal, seed=seed, cut=cut)
        same = {
            "min_tokens": swept.get("min_tokens", 0),
            "teacher_prompt": self.teacher_prompt,
        }
        return replace(choice, policy=replace(choice.policy, **same))

    def frontiers(self) -> dict[str, list[OperatingPoint]]:
        """Return the points that no cheaper one is as accurate as, over all rows.

        Returns:
            Points by kind: ``fixed length``; ``gated`` (the teacher's whole answer if the student
            is unsure); ``both`` (guidance of some length if the student is unsure);
            ``teacher only`` and ``student only``, which have one point each.
        """
        return self._frontiers

    @cached_property
    def _frontiers(self) -> dict[str, list[OperatingPoint]]:
        return frontiers(self.ways)

    # --- tables ---

    def table(self) -> Table:
        """Return accuracy and cost by length."""
        metrics = list(self.student.metrics)
        lines = []
        for length, one in self.by_length.items():
            name = f"{length}" if length else "0 (student alone)"
            lines.append(self._line(name, one, metrics))
        lines.append(self._line("all (teacher alone)", self.teacher, metrics))
        head = ["guidance tokens", "accuracy (95%)", *metrics, "unparsed", "leak"]
        head += ["teacher tokens", "$ per 1,000", "of teacher", "seconds"]
        return Table(
            title=f"{self.task_name}: {self.student.rows} questions",
            head=head,
            rows=lines,
            notes=[
                "leak: how often the guidance alone contains the answer",
                "teacher tokens: share of the completion tokens of teacher-only answers; "
                "of teacher: share of their cost, prompts included; $ per 1,000: answers",
                "seconds: of an answer, median; the teacher's share of them is estimated from "
                "its whole answer",
                *(f"cut: {count} answers, {CUT_METHODS[m]}" for m, count in self.methods.items()),
                *self._check_notes(),
                *self.notes(),
            ],
        )

    def _line(self, name: str, one: Summary, metrics: Sequence[str]) -> list[str]:
        tokens, full = one.teacher.completion_tokens, self.teacher.teacher.completion_tokens
        against = "?"
        if one.cost is not None and self.teacher.cost:
            against = percent(float(one.cost / self.teacher.cost))
        return [
            name,
            share(one.accuracy, one.interval),
            *(percent(one.metrics[metric]) for metric in metrics),
            percent(one.unparsed),
            percent(one.leaked) if one.mode == "guided" else "-",
            percent(tokens / full) if full else "?",
            per_thousand(one),
            against,
            f"{one.seconds:.2f}",
        ]

    def notes(self) -> list[str]:
        """Return what the tables' numbers do not include."""
        found, total = super().notes(), len(self.manifest["rows"])
        if self.student.rows < total:
            found.append(f"{self.student.rows} of {total} rows are answered in every way")
        if prompt := self.manifest["settings"]["chain"].get("teacher_prompt"):
            names = [step if isinstance(step, str) else step["prompt"] for step in prompt]
            found.append(
                f"the teacher was shown a prompt of its own ({', '.join(names)}), also where it "
                "answers alone: shares of its bill are of that prompt's"
            )
            if kept_prompt(prompt) is None and self.teacher_prompt is None:
                found.append(
                    "a file cannot hold that prompt: the policies of this report go without it, so "
                    "give the chain teacher_prompt="
                )
        return found

    def _check_notes(self) -> list[str]:
        if not self.checks:
            return []
        same, cost = sum(c["same"] for c in self.checks), Decimal(0)
        cost = sum((Decimal(c["cost"]) for c in self.checks), cost)
        lengths = ", ".join(str(n) for n in sorted({c["length"] for c in self.checks}))
        return [
            f"asked again at {lengths} tokens: {same} of {len(self.checks)} guidances were the "
            f"ones that had been cut; that cost ${cost:.6f} more"
        ]

    def choices(self) -> dict[str, Choice]:
        """Return what `choose` finds without a gate, and with one if there are confidences.

        Returns:
            Choices by ``fixed length`` and ``gated length``; none if there are too few rows.
        """
        if self.student.rows < 4:
            return {}
        found = {"fixed length": self.choose(max_loss=self.max_loss)}
        if self.ways.tells_confidence:
            found["gated length"] = self.choose(max_loss=self.max_loss, gate=True)
        return found

    @cached_property
    def per_question(self) -> PerQuestionChoice | str:
        """What `choose` finds with a predictor, or why it finds nothing."""
        try:
            return choose_per_question(self.ways, Goal(max_loss=self.max_loss))
        except (ValueError, ImportError) as error:
            return str(error)

    def tables(self) -> list[Table]:
        """Return accuracy by length, the frontier, and the choices."""
        found = [
            self.table(),
            self._frontier_table(),
            self._price_table(),
            *choice_tables(self.choices(), self.max_loss),
        ]
        if isinstance(self.per_question, PerQuestionChoice):
            found += per_question_tables(self.per_question)
        return found

    def price_of(self, accuracy: float, kind: str) -> float | None:
        """Return the lowest price of an accuracy, over all rows.

        Args:
            accuracy: A share of right answers.
            kind: A key of `frontiers`.

        Returns:
            The price, in the unit of the tables; None if this kind never gets so accurate.
        """
        enough = [one.cost for one in self.frontiers().get(kind, ()) if one.accuracy >= accuracy]
        return min(enough, default=None)

    def goals(self) -> list[float]:
        """Return some accuracies between the student's and the best that guidance reaches."""
        low = self.student.accuracy
        high = max(one.accuracy for one in self.by_length.values())
        return sorted({low + (high - low) * part for part in _GOALS}) if high > low else []

    def _price_table(self) -> Table:
        kinds = [kind for kind in self.frontiers() if kind in _KINDS]
        found = {goal: [self.price_of(goal, kind) for kind in kinds] for goal in self.goals()}
        return Table(
            title=f"What an accuracy costs, {self.ways.price_name}",
            head=["accuracy of at least", *kinds],
            rows=[
                [percent(goal), *("-" if one is None else self.ways.written(one) for one in prices)]
                for goal, prices in found.items()
            ],
            notes=["the cheapest of each kind, picked by looking at all rows"],
        )

    def _frontier_table(self) -> Table:
        lines = [
            [
                kind,
                point.guidance,
                point.gate,
                percent(point.accuracy),
                percent(point.asked),
                point.price,
            ]
            for kind, points in self.frontiers().items()
            for point in thinned(points)
        ]
        notes = [
            "fixed length: guidance for every question; gated: the whole answer from the teacher, "
            "where the student is unsure; both: guidance, where the student is unsure",
            "the points that no cheaper one of their kind beats, at most "
            f"{SHOWN_POINTS} of each; picked by looking at all rows, so a little too good",
            *self._confidence_notes(),
            *self._predictor_notes(),
        ]
        return Table(
            title="Accuracy for its cost",
            head=["kind", "guidance", "asks below", "accuracy", "asked", self.ways.price_name],
            rows=lines,
            notes=notes,
        )

    def _confidence_notes(self) -> list[str]:
        if not self.ways.tells_confidence:
            return ["the student does not tell how sure it is, so there is no gate"]
        right = self.ways.outcomes[0].right
        found = ", ".join(
            f"{tokens}: {auc(scores, right):.2f}"
            for tokens, scores in self.ways.confidences.items()
        )
        probe = self.ways.gates(range(len(right)))[0]
        return [
            f"asks below: this confidence over the student's first {probe} token(s)",
            "confidence: how often the student is surer of a right answer of its own than of a "
            f"wrong one (0.5 is chance), by the number of first tokens it is taken over: {found}",
        ]

    def _predictor_notes(self) -> list[str]:
        found = self.per_question
        if isinstance(found, str):
            return [f"no predictor: {found}"]
        if self.ways.tells_confidence and self.ways.entropies is None:
            return [
                "the predictor does without the entropies of the student's first tokens: torch "
                "tells them, other engines do not; sweep() with the same out= adds what an older "
                "release did not record"
            ]
        return []

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy by guidance length, and accuracy for its cost.

        Returns:
            Matplotlib figures by file name.

        Raises:
            ImportError: If matplotlib is missing.
        """
        return {
            "accuracy": charts.accuracy_by_length(self.by_length, self.teacher),
            "frontier": charts.frontier(self.frontiers(), self.ways.price_name),
        }
