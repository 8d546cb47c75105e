"""What a comparison and a sweep have in common: answers, tables, charts, reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results import html_report
from langchain_gkt.evaluation.results.answer_table import answer_table
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.evaluation.running.records import Answer, AnswerKey
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.reporting.charts import save_figures
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(ABC):
    """Answers that were written down, and what they show.

    Attributes:
        folder: The run's folder.
        answers: Every finished answer.
        failures: Messages of what failed and has not succeeded since.
    """

    folder: RunStore
    answers: tuple[Answer, ...] = ()
    failures: Mapping[AnswerKey, str] = field(default_factory=dict)

    @staticmethod
    def read(folder: RunStore) -> tuple[list[Answer], dict[AnswerKey, str]]:
        """Return a folder's answers to the manifest's rows, in their order, and what failed."""
        order = {row: place for place, row in enumerate(folder.manifest["rows"])}
        answers: dict[AnswerKey, Answer] = {}
        failures: dict[AnswerKey, str] = {}
        for line in folder.lines:
            if line["type"] == "answer":
                answer = Answer.from_dict(line["answer"])
                answers[answer.key] = answer
                failures.pop(answer.key, None)
            elif line["type"] == "check":
                failures.pop(AnswerKey(line["row"], "check", line["length"]), None)
            elif line["type"] == "failure":
                key = AnswerKey(line["row"], line["mode"], line["length"], line.get("sample", 0))
                failures[key] = line["error"]
        known = [answer for answer in answers.values() if answer.row in order]
        known.sort(key=lambda answer: order[answer.row])
        return known, {key: error for key, error in failures.items() if key.row in order}

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run was made with: task, models, settings, prices, versions."""
        return self.folder.manifest

    @property
    def task_name(self) -> str:
        """The task's name."""
        return str(self.manifest["settings"]["task"]["name"])

    @abstractmethod
    def table(self) -> Table:
        """Return the main table."""

    @abstractmethod
    def figures(self) -> dict[str, Figure]:
        """Draw the charts; figures by file name."""

    def tables(self) -> list[Table]:
        """Return all tables, the main one first."""
        return [self.table()]

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """The answers as a tidy table; see `answer_table`."""
        return answer_table(self.answers)

    def recorded_notes(self) -> list[str]:
        """Return where a recorded teacher's answers come from; nothing of a live one."""
        return [
            f"the teacher is recorded: {one['answers']} answers of {one['model'] or 'a model'} in "
            f"{one['file']}{' of ' + one['dated'] if one['dated'] else ''}; no provider was "
            "called, costs are what it would have billed, and seconds are the student's alone"
            for one in self.manifest["sessions"][-1].get("recorded", ())
        ]

    def notes(self) -> list[str]:
        """Return what the table's numbers do not include."""
        notes, errors = self.recorded_notes(), dict[str, list[str]]()
        for key, error in self.failures.items():
            errors.setdefault(key.mode, []).append(error)
        for mode, failed in errors.items():
            notes.append(f"{mode}: {len(failed)} failed and are left out, such as {failed[0]}")
        total = len(self.manifest["rows"])
        unreported = sum(a.teacher.unreported + a.student.unreported for a in self.answers)
        if unreported:
            notes.append(
                f"cost: at least this much; {unreported} call(s) failed or told no usage, and may "
                "have been billed"
            )
        answered = self.frame.groupby("strategy", sort=False)["row"].nunique()
        for strategy, done in answered.items():
            if done < total:
                notes.append(f"{strategy}: {done} of {total} rows are answered")
        return notes

    def __str__(self) -> str:
        """Return the tables as text."""
        return "\n\n".join(table.text() for table in self.tables())

    def markdown(self) -> str:
        """Return the tables as Markdown."""
        return "\n\n".join(table.markdown() for table in self.tables())

    def _repr_html_(self) -> str:
        """Return the tables for a notebook."""
        return "".join(table.html() for table in self.tables())

    def to_frame(self) -> pandas.DataFrame:
        """Return the answers as a pandas DataFrame, one line each; see `answer_table`.

        Raises:
            ImportError: If pandas is missing.
        """
        return self.frame.copy()

    def save(self, folder: str | Path | None = None) -> list[Path]:
        """Write report.txt, report.md, report.html and the charts, and return the files.

        Args:
            folder: Where to; None for the run's own folder.

        Raises:
            ValueError: If the run has no folder and none is given.
            ImportError: If matplotlib or jinja2 is missing.
        """
        target = folder if folder is not None else self.folder.path
        if target is None:
            raise ValueError("folder is missing: this run was made without out=")
        target, figures = Path(target), self.figures()
        files = save_figures(figures, target)
        images = "\n\n".join(f"![{name}]({name}.svg)" for name in figures)
        for name, text in (
            ("report.txt", f"{self}\n"),
            ("report.md", f"{self.markdown()}\n\n{images}\n"),
            ("report.html", html_report.page(self.manifest, self.tables(), figures, self.frame)),
        ):
            (target / name).write_text(text, encoding="utf-8")
            files.append(target / name)
        return files


def percent(value: float) -> str:
    """Format a share in per cent."""
    return f"{value * 100:.1f}%"


def share(value: float, interval: tuple[float, float]) -> str:
    """Format a share with its interval."""
    low, high = (round(100 * end) for end in interval)
    return f"{value * 100:.1f}% ({low}-{high})"


def dollars(cost: Decimal | str | None) -> str:
    """Format US dollars, or say that they are unknown."""
    return "unknown" if cost is None else f"${Decimal(cost):.6f}"


def per_thousand(summary: Summary) -> str:
    """Format the cost of a thousand answers, or say that it is unknown."""
    return "unknown" if summary.cost is None else f"{summary.cost * 1000 / summary.rows:.4f}"


def duration(seconds: float | None) -> str:
    """Format seconds, or say that they were not measured."""
    return "-" if seconds is None else f"{seconds:.2f}"
