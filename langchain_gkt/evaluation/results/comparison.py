"""What a comparison found: teacher, student and guided answers to the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING

from langchain_gkt.evaluation.results import charts
from langchain_gkt.evaluation.results.base import (
    EvaluationResult,
    dollars,
    duration,
    percent,
    share,
)
from langchain_gkt.evaluation.results.ratio import Ratio, bootstrap_ratio
from langchain_gkt.evaluation.results.statistics import PairedTest, paired_test
from langchain_gkt.evaluation.results.summary import Summary, summarise
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Comparison(EvaluationResult):
    """What `compare` found; ``print`` shows the table.

    Attributes:
        summaries: Sums by mode, over the rows that every mode has answered.
        pairs: Guided answers compared with each of the other modes, row by row.
        common: Keys of the rows that every mode has answered.
    """

    summaries: dict[str, Summary] = field(default_factory=dict)
    pairs: tuple[PairedTest, ...] = ()
    common: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: RunStore) -> Comparison:
        """Make a comparison from what a run wrote down; no model is called.

        Args:
            folder: The run's folder.

        Returns:
            The comparison.
        """
        answers, failures = cls.read(folder)
        modes: Sequence[str] = folder.manifest["settings"]["modes"]
        by_mode = {
            mode: found for mode in modes if (found := [a for a in answers if a.mode == mode])
        }
        rows = set(folder.manifest["rows"])
        for found in by_mode.values():
            rows &= {answer.row for answer in found}
        common = {mode: [a for a in by_mode[mode] if a.row in rows] for mode in by_mode if rows}
        pairs = [
            paired_test(common["guided"], common[other], ("guided", other))
            for other in ("student", "teacher")
            if "guided" in common and other in common
        ]
        return cls(
            folder=folder,
            answers=tuple(answers),
            failures=failures,
            summaries={mode: summarise(found) for mode, found in common.items()},
            pairs=tuple(pairs),
            common=frozenset(rows),
        )

    def table(self) -> Table:
        """Return the table: one line for each measure, one column for each mode."""
        found = list(self.summaries.values())
        names = list(found[0].metrics) if found else []
        teacher_cost = self.summaries["teacher"].cost if "teacher" in self.summaries else None

        def against(one: Summary) -> str:
            if one.cost is None or not teacher_cost:
                return "?"
            return percent(float(one.cost / teacher_cost))

        count = max(1, found[0].rows) if found else 1
        lines: list[tuple[str, list[str]]] = [
            ("accuracy (95%)", [share(s.accuracy, s.interval) for s in found]),
            *((f"  {n}", [percent(s.metrics[n]) for s in found]) for n in names),
            ("unparsed", [percent(s.unparsed) for s in found]),
            ("guidance holds the answer", [_if_guided(s, percent(s.leaked)) for s in found]),
            ("teacher asked", [percent(s.asked) for s in found]),
            ("teacher prompt tokens", [f"{s.teacher.prompt_tokens:,}" for s in found]),
            ("teacher completion tokens", [f"{s.teacher.completion_tokens:,}" for s in found]),
            ("student prompt tokens", [f"{s.student.prompt_tokens:,}" for s in found]),
            ("student completion tokens", [f"{s.student.completion_tokens:,}" for s in found]),
            ("cost: teacher's prompts", [dollars(s.teacher.prompt_cost) for s in found]),
            ("cost: teacher's completions", [dollars(s.teacher.completion_cost) for s in found]),
            ("cost in all", [dollars(s.cost) for s in found]),
            ("cost against teacher", [against(s) for s in found]),
            ("wall time", [f"{s.wall_seconds:.1f} s" for s in found]),
            ("tokens per second", [f"{s.tokens_per_second:.1f}" for s in found]),
            ("seconds per answer (median)", [f"{s.seconds:.2f}" for s in found]),
            ("time to first token (median)", [duration(s.first_token_seconds) for s in found]),
        ]
        return Table(
            title=f"{self.task_name}: {count if found else 0} questions",
            head=["", *(s.mode for s in found)],
            rows=[[name, *cells] for name, cells in lines] if found else [],
            notes=[*map(str, self.pairs), *self.notes(), *self._about_costs()],
        )

    def cost_ratio(self, *, confidence: float = 0.95, seed: int = 0) -> Ratio | None:
        """Return the cost of the guided answers over that of the teacher's own.

        Args:
            confidence: Level of the interval.
            seed: Seed of the bootstrap over questions.

        Returns:
            The ratio with its interval; None if one of the modes is missing, a cost is unknown,
            or the teacher cost nothing.
        """
        costs = {
            mode: {a.row: a.cost for a in self.answers if a.mode == mode and a.row in self.common}
            for mode in ("guided", "teacher")
        }
        pairs = [
            (float(guided), float(teacher))
            for row, guided in costs["guided"].items()
            if guided is not None and (teacher := costs["teacher"].get(row)) is not None
        ]
        complete = len(pairs) == len(costs["guided"]) == len(costs["teacher"])
        if not complete or not sum(teacher for _, teacher in pairs):
            return None
        return bootstrap_ratio(pairs, confidence=confidence, seed=seed)

    def notes(self) -> list[str]:
        """Return what the table's numbers do not include, and what the teacher was shown."""
        found = super().notes()
        if self.manifest["settings"]["chain"].get("teacher_prompt"):
            found.append(
                "guided: the teacher was shown a prompt of its own; the teacher alone read the "
                "whole conversation"
            )
        return found

    def _about_costs(self) -> list[str]:
        if not any(one.cost is None for one in self.summaries.values()):
            return []
        return [
            "cost: unknown where a model has no known price (give teacher_price=), or never told "
            "its usage"
        ]

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy and price by mode, and where the time goes.

        Returns:
            Matplotlib figures by file name.

        Raises:
            ImportError: If matplotlib is missing.
        """
        if not self.summaries:
            return {}
        return {
            "modes": charts.modes(list(self.summaries.values())),
            "time": charts.time_split(self.times()),
        }

    def times(self) -> dict[str, dict[str, float]]:
        """Return how the time of an answer is spent, in mean seconds.

        Returns:
            By mode: ``teacher`` (waiting for it), ``prefill`` (to the student's first token)
            and ``decode`` (the student's other tokens).
        """
        found = {}
        for mode in self.summaries:
            mine = [a for a in self.answers if a.mode == mode and a.row in self.common]
            firsts = [a.student.first_token_seconds or 0.0 for a in mine]
            found[mode] = {
                "teacher": mean(a.teacher.seconds for a in mine),
                "prefill": mean(firsts),
                "decode": mean(
                    max(0.0, a.student.seconds - first)
                    for a, first in zip(mine, firsts, strict=True)
                ),
            }
        return found


def _if_guided(summary: Summary, cell: str) -> str:
    return cell if summary.mode == "guided" else "-"
