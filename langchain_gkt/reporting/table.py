"""A table with notes, as text, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from langchain_gkt.costs.rendering import aligned


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table.

    Attributes:
        title: What it shows.
        head: Names of the columns.
        rows: The cells, as text; the first of each row is its name.
        notes: What the table cannot say.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Return aligned lines."""
        return "\n".join([self.title, *aligned([self.head, *self.rows]), *self.notes])

    def markdown(self) -> str:
        """Return a Markdown table with its notes as a list."""
        lines = [list(map(_plain, row)) for row in [self.head, *self.rows]]
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join(filter(None, [f"**{self.title}**", table, notes]))

    def html(self) -> str:
        """Return an HTML element."""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.head)
        body = "".join(
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f'<div class="scroll"><table><caption>{escape(self.title)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
            + (f"<ul>{notes}</ul>" if notes else "")
        )


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
