"""What a comparison and a sweep have in common: answers, tables, pictures, reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.evaluation.running.records import Answer
from langchain_gkt.evaluation.running.run_store import RunFolder
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Key = tuple[str, str, int | None]


@dataclass(frozen=True, kw_only=True)
class Run(ABC):
    """Answers that were written down, and what is made of them.

    Attributes:
        folder: The run's folder.
        answers: Every finished answer.
        failures: Messages of what failed and has not been made good since.
    """

    folder: RunFolder
    answers: tuple[Answer, ...] = ()
    failures: Mapping[Key, str] = field(default_factory=dict)

    @staticmethod
    def read(folder: RunFolder) -> tuple[list[Answer], dict[Key, str]]:
        """Read a folder's lines.

        Args:
            folder: The folder.

        Returns:
            The answers to the manifest's rows, in their order, and what has failed.

        Raises:
            ValueError: If a line is damaged.
        """
        order = {row: at for at, row in enumerate(folder.manifest["rows"])}
        answers: dict[Key, Answer] = {}
        failures: dict[Key, str] = {}
        for number, line in enumerate(folder.lines, 1):
            try:
                if line["type"] == "answer":
                    answer = Answer.from_dict(line["answer"])
                    answers[answer.key] = answer
                    failures.pop(answer.key, None)
                elif line["type"] == "check":
                    failures.pop((line["row"], "check", line["length"]), None)
                elif line["type"] == "failure":
                    failures[line["row"], line["mode"], line["length"]] = line["error"]
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"line {number} of {folder.path} is damaged: {type(error).__name__}: {error}"
                ) from error
        mine = [answer for answer in answers.values() if answer.row in order]
        mine.sort(key=lambda answer: order[answer.row])
        return mine, {key: error for key, error in failures.items() if key[0] in order}

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run was made with: task, models, settings, prices, versions."""
        return self.folder.manifest

    @property
    def task_name(self) -> str:
        """The task's name."""
        return str(self.manifest["settings"]["task"]["name"])

    @abstractmethod
    def grid(self) -> Table:
        """Return the table."""

    @abstractmethod
    def figures(self) -> dict[str, Figure]:
        """Draw what there is to see; figures by file name."""

    def grids(self) -> list[Table]:
        """Return all tables, the main one first."""
        return [self.grid()]

    def notes(self) -> list[str]:
        """Return what the table's numbers leave out."""
        found = []
        for mode in dict.fromkeys(mode for _, mode, _ in self.failures):
            errors = [error for (_, m, _), error in self.failures.items() if m == mode]
            found.append(f"{mode}: {len(errors)} failed and are left out, such as {errors[0]}")
        total = len(self.manifest["rows"])
        unreported = sum(a.teacher.unreported + a.student.unreported for a in self.answers)
        if unreported:
            found.append(
                f"cost: at least this much; {unreported} call(s) failed or told no usage, and may "
                "have been billed"
            )
        for mode in dict.fromkeys(answer.mode for answer in self.answers):
            done = len({answer.row for answer in self.answers if answer.mode == mode})
            if done < total:
                found.append(f"{mode}: {done} of {total} rows are answered")
        return found

    def __str__(self) -> str:
        """Return the tables as text."""
        return "\n\n".join(grid.text() for grid in self.grids())

    def markdown(self) -> str:
        """Return the tables as Markdown."""
        return "\n\n".join(grid.markdown() for grid in self.grids())

    def _repr_html_(self) -> str:
        """Return the tables for a notebook."""
        return "".join(grid.html() for grid in self.grids())

    def to_frame(self) -> pandas.DataFrame:
        """Return the answers as a pandas DataFrame, one line each.

        Returns:
            Fields of `Answer`; the parts' fields behind ``teacher_`` and ``student_``, the
            metrics behind ``is_``.

        Raises:
            ImportError: If pandas is missing.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                'pandas is not installed: pip install "langchain-gkt[report]"'
            ) from error
        lines = []
        for answer in self.answers:
            data = answer.to_dict()
            parts = {
                f"{role}_{name}": value
                for role in ("teacher", "student")
                for name, value in data.pop(role).items()
            }
            verdicts = {f"is_{name}": value for name, value in data.pop("verdicts").items()}
            lines.append({**data, "right": answer.right, **verdicts, **parts})
        return pandas.DataFrame(lines)

    def save(self, folder: str | Path | None = None) -> list[Path]:
        """Write report.txt, report.md, report.html and the pictures as PNG and SVG.

        Args:
            folder: Where to; None for the run's own folder.

        Returns:
            The files.

        Raises:
            ValueError: If the run has no folder and none is given.
            ImportError: If matplotlib is missing.
        """
        from langchain_gkt.evaluation.results.html_report import save

        where = folder if folder is not None else self.folder.path
        if where is None:
            raise ValueError("folder is missing: this run was made without out=")
        return save(self, Path(where))


def percent(value: float) -> str:
    """Write a share in per cent."""
    return f"{value * 100:.1f}%"


def share(value: float, interval: tuple[float, float]) -> str:
    """Write a share with its interval."""
    low, high = (round(100 * end) for end in interval)
    return f"{value * 100:.1f}% ({low}-{high})"


def dollars(cost: Decimal | str | None) -> str:
    """Write US dollars, or that they are not known."""
    return "unknown" if cost is None else f"${Decimal(cost):.6f}"


def per_thousand(summary: Summary) -> str:
    """Write the cost of a thousand answers, or that it is not known."""
    return "unknown" if summary.cost is None else f"{summary.cost * 1000 / summary.rows:.4f}"


def span(seconds: float | None) -> str:
    """Write seconds, or that they were not measured."""
    return "-" if seconds is None else f"{seconds:.2f}"
