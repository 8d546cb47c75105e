"""compare(): teacher, student and guided answers to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.evaluation.results.run import Run, dollars, percent, share, span
from langchain_gkt.evaluation.results.summary import Paired, Summary, paired, summarise
from langchain_gkt.evaluation.running.progress import Bar
from langchain_gkt.evaluation.running.run_store import RunFolder
from langchain_gkt.evaluation.running.runner import Desk, settings_of
from langchain_gkt.evaluation.running.waiting import waited_for
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.metadata import Mode
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODES: tuple[Mode, ...] = ("teacher", "student", "guided")


@dataclass(frozen=True, kw_only=True)
class Comparison(Run):
    """What `compare` found; ``print`` shows the table.

    Attributes:
        summaries: Sums by mode, over the rows that every mode has answered.
        pairs: The modes held against each other.
        common: Keys of the rows that every mode has answered.
    """

    summaries: dict[str, Summary] = field(default_factory=dict)
    pairs: tuple[Paired, ...] = ()
    common: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: RunFolder) -> Comparison:
        """Make it from what a run wrote down; no model is called.

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
        rows = {row for row in folder.manifest["rows"]}
        for found in by_mode.values():
            rows &= {answer.row for answer in found}
        common = {mode: [a for a in by_mode[mode] if a.row in rows] for mode in by_mode if rows}
        pairs = [
            paired(common["guided"], common[other], ("guided", other))
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

    def grid(self) -> Table:
        """Return the table: what is measured down the side, the modes across."""
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
            ("guidance holds the answer", [_guided(s, percent(s.leaked)) for s in found]),
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
            ("time to first token (median)", [span(s.first_token_seconds) for s in found]),
        ]
        return Table(
            title=f"{self.task_name}: {count if found else 0} questions",
            head=["", *(s.mode for s in found)],
            rows=[[name, *cells] for name, cells in lines] if found else [],
            notes=[*map(str, self.pairs), *self.notes(), *self._about_costs()],
        )

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
        from langchain_gkt.evaluation.results import charts as pictures

        if not self.summaries:
            return {}
        return {
            "modes": pictures.modes(list(self.summaries.values())),
            "time": pictures.time_split(self.times()),
        }

    def times(self) -> dict[str, dict[str, float]]:
        """Return where an answer's time goes, in mean seconds.

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


def _guided(summary: Summary, cell: str) -> str:
    return cell if summary.mode == "guided" else "-"


async def acompare(
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    *,
    modes: Sequence[Mode] = MODES,
    teacher_price: Prices = None,
    student_price: Prices | MachineTime = None,
    out: str | Path | None = None,
    concurrency: int = 8,
    progress: bool | None = None,
) -> Comparison:
    """Answer the same questions in each mode and compare accuracy, cost and speed.

    Every finished row is written down at once. A run that was ended, however suddenly, is
    gone on with by the same call: what is in ``out`` is neither asked nor paid for again.

    Args:
        chain: The guided pair; ``max_tokens`` and ``stop`` are the task's where it has none.
        task: The questions; see `load_task` and `Task`.
        modes: Which of ``teacher``, ``student`` and ``guided`` to ask, one after the other.
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        out: The run's folder; None to keep nothing.
        concurrency: Most questions at the same time. Times are those of that load.
        progress: Whether to show a progress bar; None for where standard error is a terminal.

    Returns:
        The comparison, over the rows that every mode has answered.

    Raises:
        ValueError: If an argument makes no sense, or ``out`` holds a run of other settings.
        RuntimeError: If every question fails, or another process writes to ``out``.
    """
    modes = tuple(modes)
    if unknown := [mode for mode in modes if mode not in MODES] or not modes:
        raise ValueError(f"modes must be some of {', '.join(MODES)}, not {unknown or modes!r}")
    folder = RunFolder(out)
    desk = Desk(chain, task, folder, teacher_price, student_price, concurrency)
    settings: dict[str, Any] = {**settings_of(desk), "modes": list(modes)}
    with folder.writing("compare", settings, desk.questions, desk.about), Bar(progress) as bar:
        desk.load()
        for mode in modes:
            await desk.run(mode, desk.missing(mode), bar)
    return Comparison.of(folder)


compare = waited_for(acompare, "compare")
