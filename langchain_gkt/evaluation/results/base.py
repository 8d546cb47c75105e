"""The common part of all results: answers, sums, tables, charts, reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.evaluation.results import html_report
from langchain_gkt.evaluation.results.answer_table import answer_table
from langchain_gkt.evaluation.results.summary import Summary, summarise
from langchain_gkt.evaluation.running.records import Answer, AnswerKey
from langchain_gkt.evaluation.running.repricing import baseline_notes, repriced
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.prompts.plain_data import kept_prompt
from langchain_gkt.prompts.shared_prefix import cache_notes
from langchain_gkt.reporting.charts import save_figures
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Report(ABC):
    """Tables and charts. ``print`` and notebooks show the tables."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """Return all tables, the main one first."""

    @abstractmethod
    def figures(self) -> dict[str, Figure]:
        """Draw the charts, by file name.

        Raises:
            ImportError: If matplotlib is missing.
        """

    def conclusion(self) -> list[str]:
        """Return what the run shows, in sentences. Empty if it has too few rows."""
        return []

    def __str__(self) -> str:
        """Return the tables as text."""
        return "\n\n".join(table.text() for table in self.tables())

    def markdown(self) -> str:
        """Return the tables as Markdown."""
        return "\n\n".join(table.markdown() for table in self.tables())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the tables in IPython. The fields alone fill a screen."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """Return the tables for a notebook."""
        return "".join(table.html() for table in self.tables())

    def _write(self, folder: Path, name: str, run: EvaluationResult) -> list[Path]:
        """Write the charts and NAME.txt, NAME.md and NAME.html, with examples of a run."""
        figures = self.figures()
        files = save_figures(figures, folder)
        images = "\n\n".join(f"![{figure}]({figure}.svg)" for figure in figures)
        shown = f"\n{images}\n" if run is self else ""
        page = html_report.page(run.manifest, self.tables(), files, run.frame, self.conclusion())
        texts = {"txt": f"{self}\n", "md": f"{self.markdown()}\n{shown}", "html": page}
        for suffix, text in texts.items():
            files.append(folder / f"{name}.{suffix}")
            files[-1].write_text(text, encoding="utf-8")
        return files


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Report):
    """Stored answers, and what they show.

    Attributes:
        folder: The run's folder, which has been read.
    """

    folder: RunStore
    _repr_pretty_ = Report._repr_pretty_  # IPython would prefer the __repr__ of this dataclass

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """Every finished answer, in the order of the manifest's rows.

        All figures, money included, come from these. To price answers otherwise, override this with
        other costs in both models' parts.
        """
        order = {row: place for place, row in enumerate(self.manifest["rows"])}
        latest = {answer.key: answer for answer in self.folder.answers()}
        known = [answer for answer in latest.values() if answer.row in order]
        return tuple(sorted(known, key=lambda answer: order[answer.row]))

    @cached_property
    def failures(self) -> Mapping[AnswerKey, str]:
        """Messages of failures that have not succeeded since."""
        failures: dict[AnswerKey, str] = {}
        for line in self.folder.lines:
            fields = line.get("answer", line)
            if line["type"] not in ("answer", "check", "failure"):
                continue
            mode = fields.get("mode", "check")
            key = AnswerKey(fields["row"], mode, fields.get("length"), fields.get("sample", 0))
            if line["type"] == "failure":
                failures[key] = line["error"]
            else:
                failures.pop(key, None)
        rows = set(self.manifest["rows"])
        return {key: error for key, error in failures.items() if key.row in rows}

    @property
    def manifest(self) -> dict[str, Any]:
        """The run's settings: task, models, settings, prices, versions."""
        return self.folder.manifest

    @property
    def task_name(self) -> str:
        """The task's name."""
        return str(self.manifest["settings"]["task"]["name"])

    def in_scenario(self, scenario: BillingScenario) -> Self:
        """Return the same answers with the teacher billed by a scenario. See `repriced`."""
        return replace(self, folder=repriced(self.folder, scenario))

    @abstractmethod
    def table(self) -> Table:
        """Return the main table."""

    def tables(self) -> list[Table]:
        """Return all tables, the main one first."""
        return [self.table()]

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """The answers as a tidy table. See `answer_table`."""
        return answer_table(self.answers)

    def _ways(self) -> Any:
        """Return how each answer of the frame was made, which is the group of its sums."""
        return self.frame["strategy"]

    @cached_property
    def complete(self) -> pandas.DataFrame:
        """The answers to rows that are answered in every ``way``, with that column."""
        table = self.frame.assign(way=self._ways())
        counts = table.groupby("row")["way"].nunique()
        return table[table["row"].isin(counts.index[counts == table["way"].nunique()])]

    @cached_property
    def sums(self) -> dict[Any, Summary]:
        """Their sums, by ``way``."""
        return {way: summarise(group) for way, group in self.complete.groupby("way", sort=False)}

    def recorded_notes(self) -> list[str]:
        """Return the source of a recorded teacher's answers. Empty for a live one."""
        return [
            f"the teacher is recorded: {log['answers']} answers of {log['model'] or 'a model'} in "
            f"{log['file']}{' of ' + log['dated'] if log['dated'] else ''}; no provider was "
            "called, costs are what it would have billed, and seconds are the student's alone"
            for log in self.manifest["sessions"][-1].get("recorded", ())
        ]

    def billing_notes(self) -> list[str]:
        """Return what the teacher alone costs naively and at the least, and what breaks a cache."""
        chain = self.manifest["settings"].get("chain") or {}
        return [
            *baseline_notes(self.folder),
            *cache_notes(kept_prompt(chain.get("teacher_prompt"))),
        ]

    def notes(self) -> list[str]:
        """Return what the table's numbers do not include."""
        notes, errors = self.recorded_notes(), dict[str, list[str]]()
        notes += self.billing_notes()
        for key, error in self.failures.items():
            errors.setdefault(key.mode, []).append(error)
        for mode, failed in errors.items():
            notes.append(f"{mode}: {len(failed)} failed and are left out, such as {failed[0]}")
        total = len(self.manifest["rows"])
        unreported = sum(a.teacher.unreported + a.student.unreported for a in self.answers)
        if unreported:
            notes.append(
                f"cost: at least this much; {unreported} call(s) failed or reported no usage, and "
                "may have been billed"
            )
        answered = self.frame.groupby("strategy", sort=False)["row"].nunique()
        for strategy, done in answered.items():
            if done < total:
                notes.append(f"{strategy}: {done} of {total} rows are answered")
        return notes

    def to_frame(self) -> pandas.DataFrame:
        """Return the answers as a pandas DataFrame, one line each. See `answer_table`."""
        return self.frame.copy()

    def save(self, folder: str | Path | None = None) -> list[Path]:
        """Write report.txt, report.md, report.html and the charts, and return the files.

        Args:
            folder: The target. None for the run's own folder.

        Raises:
            ValueError: If the run has no folder and none is given.
            ImportError: If matplotlib or jinja2 is missing.
        """
        target = folder if folder is not None else self.folder.path
        if target is None:
            raise ValueError("folder is missing: this run was made without out=")
        return self._write(Path(target), "report", self)
