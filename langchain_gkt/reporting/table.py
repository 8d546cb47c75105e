"""A table with notes, as text, as Markdown, as HTML and for rich."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from langchain_gkt.reporting.html import missing_extra, render

RowStyle = Literal["", "total", "estimated"]

_RICH_STYLES = {"": "", "total": "bold", "estimated": "italic"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose cells are text.

    Attributes:
        title: Its title. May be empty.
        head: Names of the columns.
        rows: The cells. The first of each row is its name, indented if it is part of the row
            above.
        notes: What the table cannot show.
        styles: The style of each row. Rows without one are plain.
    """

    title: str = ""
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    styles: Sequence[RowStyle] = ()

    @classmethod
    def of(
        cls, lines: Sequence[Mapping[str, str]], *, title: str, notes: Sequence[str] = ()
    ) -> Table:
        """Make a table of one or more lines that name their columns, all in the same order."""
        rows = [list(line.values()) for line in lines]
        return cls(title=title, head=list(lines[0]), rows=rows, notes=notes)

    def text(self) -> str:
        """Return aligned lines."""
        lines = _aligned([self.head, *self.rows])
        return "\n".join([*filter(None, [self.title]), *lines, *self.notes])

    def terminal_text(self) -> str:
        """Return the text for ``print``: drawn by rich if it goes to a terminal, else plain."""
        stdout: Any = sys.stdout
        if stdout is None or not getattr(stdout, "isatty", lambda: False)():
            return self.text()
        try:
            from rich.console import Console
        except ImportError:
            return self.text()
        drawn = io.StringIO()
        console = Console(file=drawn, width=Console().width, color_system=None)
        console.print(self.rich())
        return drawn.getvalue().rstrip()

    def markdown(self) -> str:
        """Return a Markdown table with its notes as a list."""
        lines = [list(map(_plain, row)) for row in [self.head, *self.rows]]
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join(filter(None, [self.title and f"**{self.title}**", table, notes]))

    def html(self) -> str:
        """Return an HTML element without a style of its own, for a page.

        Raises:
            ImportError: If jinja2 is missing.
        """
        return render("table.html.j2", table=self, rows=self._styled())

    def notebook_html(self) -> str:
        """Return an HTML element that takes the colours of its notebook.

        Raises:
            ImportError: If jinja2 is missing.
        """
        return render("notebook.html.j2", table=self, rows=self._styled())

    def rich(self) -> Any:
        """Return an object that a rich console prints.

        Raises:
            ImportError: If rich is missing.
        """
        try:
            from rich.console import Group
            from rich.table import Table as RichTable
            from rich.text import Text
        except ImportError as error:
            raise missing_extra("rich") from error
        title = self.title or None
        table = RichTable(title=title, box=None, padding=(0, 1, 0, 0), header_style="bold")
        for i, name in enumerate(self.head):
            table.add_column(name, justify="right" if i else "left", no_wrap=not i)
        for row, style in self._styled():
            table.add_row(*map(Text, row), style=_RICH_STYLES[style])
        return Group(table, *(Text(note, style="dim") for note in self.notes))

    def _styled(self) -> list[tuple[Sequence[str], RowStyle]]:
        return list(zip_longest(self.rows, self.styles, fillvalue=""))


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Align a table's cells: the first column at the left, the others at the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
