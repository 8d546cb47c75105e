"""The report's table as text, for rich, as HTML and as a DataFrame."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from langchain_gkt.costs.totals import Counts

if TYPE_CHECKING:
    import pandas

    from langchain_gkt.costs.report import CostReport

HEAD = ("", "calls", "prompt tok", "completion tok", "prompt $", "completion $", "total $")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: What it is called.
        role: ``teacher``, ``student``, ``total`` or ``teacher only``.
        model: A model's name, or ``all``.
        kind: ``measured`` or ``estimated``.
        counts: What it sums up.
    """

    name: str
    role: str
    model: str
    kind: str
    counts: Counts

    def cells(self) -> tuple[str, ...]:
        """Return the line as text."""
        counts, known = self.counts, not self.counts.unpriced_calls
        money = (counts.prompt_cost, counts.completion_cost, counts.known_cost)
        return (
            self.name,
            f"{counts.calls:,}",
            f"{counts.prompt_tokens:,}",
            f"{counts.completion_tokens:,}",
            *(_money(one, known, counts.whole) for one in money),
        )


def _money(money: Decimal, known: bool, whole: bool) -> str:
    if whole:
        return f"{money:.6f}"
    if money:
        return f"{money:.6f} + ?"
    return "unknown" if known else "unpriced"


def rows(report: CostReport) -> list[Row]:
    """Return the table's lines.

    Args:
        report: The report.

    Returns:
        Roles, each with its models where it has several, and what is set against them.
    """
    found = []
    for role, counts in (("teacher", report.teacher), ("student", report.student)):
        found.append(Row(name=role, role=role, model="all", kind="measured", counts=counts))
        named = [(m, c) for (owner, m), c in sorted(report.models.items()) if owner == role]
        if len(named) > 1:
            found += [
                Row(name=f"  {model}", role=role, model=model, kind="measured", counts=one)
                for model, one in named
            ]
    found.append(Row(name="total", role="total", model="all", kind="measured", counts=report.total))
    missing = _missing(report.total)
    if missing.calls:
        found.append(
            Row(
                name="unreported (estimated)",
                role="unreported",
                model="all",
                kind="estimated",
                counts=missing,
            )
        )
    if report.estimate.calls:
        found.append(
            Row(
                name="teacher only (estimated)",
                role="teacher only",
                model="all",
                kind="estimated",
                counts=report.estimate.counts,
            )
        )
    if report.comparison:
        for mode, counts in report.comparison.counts.items():
            found.append(
                Row(
                    name=f"compared: {mode}",
                    role=f"compared: {mode}",
                    model="all",
                    kind="measured",
                    counts=counts,
                )
            )
    return found


def _missing(counts: Counts) -> Counts:
    """Return what was not reported as sums of its own."""
    return Counts(
        calls=counts.unreported_calls,
        prompt_tokens=counts.unreported_prompt_tokens,
        completion_tokens=counts.unreported_completion_tokens,
        prompt_cost=counts.unreported_prompt_cost,
        completion_cost=counts.unreported_completion_cost,
        unpriced_calls=counts.unreported_unpriced_calls,
    )


def notes(report: CostReport) -> list[str]:
    """Return what the table cannot say.

    Args:
        report: The report.

    Returns:
        Sentences.
    """
    found = []
    for name, counts in (("teacher", report.teacher), ("student", report.student)):
        found += [f"{name} price: {source}" for source in sorted(counts.sources)]
        if counts.calls:
            found.append(_times(name, counts))
        for number, words in (
            (counts.failed_calls, "failed"),
            (counts.retries, "repeated a failed one"),
            (counts.cache_hits, "came from the cache, free"),
            (counts.unpriced_calls, "are unpriced: their money is not in the table"),
        ):
            if number:
                found.append(f"{name}: {number} call(s) {words}")
        if counts.unreported_calls:
            most = (
                ""
                if counts.unlimited_calls
                else f", at most {counts.unreported_completion_limit:,} completion tokens"
            )
            found.append(
                f"{name}: {counts.unreported_calls} call(s) reported no usage; estimated apart, "
                f"not in the sums{most}"
            )
    found += _estimate_notes(report)
    if report.comparison:
        found.append(str(report.comparison))
    if budget := report.budget:
        limits = [f"{k}={budget[k]}" for k in ("usd", "per_call_usd", "tokens") if budget[k]]
        found.append(
            f"budget {', '.join(limits)}: ${budget['spent_usd']} and {budget['spent_tokens']:,} "
            f"teacher tokens spent, {budget['refused_calls']} call(s) refused"
        )
    if report.hidden_retries:
        found.append(
            f"not seen: retries inside the client of {', '.join(report.hidden_retries)}; set its "
            "max_retries=0 and use with_retry() to have them counted"
        )
    if report.running:
        found.append(f"{report.running} call(s) still running, not counted")
    return found


def _times(name: str, counts: Counts) -> str:
    text = f"{name}: {counts.seconds:.2f} s in calls"
    if counts.first_token_calls:
        mean = counts.first_token_seconds / counts.first_token_calls
        text += f", first token after {mean:.3f} s on average of {counts.first_token_calls}"
    if counts.machine_cost:
        text += f"; machine busy {counts.busy_seconds:.2f} s = ${counts.machine_cost:.6f}"
    return text


def _estimate_notes(report: CostReport) -> list[str]:
    found = []
    data = report._estimate_dict()
    if data["ratio"] is not None:
        found.append(
            f"guided calls cost {data['ratio']:.0%} of teacher only (estimated); "
            f"{data['guided_prompt_share'] or 0:.0%} of what they cost is prompt, which guidance "
            f"cannot save: it is {data['prompt_share']:.0%} of teacher only's bill"
        )
        if cached := data["if_prompts_were_cached"]:
            found.append(
                "if the provider read every prompt from its cache: guided "
                f"${Decimal(cached['guided_cost']):.6f}, teacher only "
                f"${Decimal(cached['cost']):.6f} (estimated)"
            )
    if data["calls"]:
        found.append(f"estimate: {data['method']}")
    if data["not_estimated_calls"]:
        found.append(f"{data['not_estimated_calls']} guided call(s) not in the estimate")
    return found


def text(report: CostReport) -> str:
    """Return the table as text: drawn by rich at a terminal, plain elsewhere.

    Args:
        report: The report.

    Returns:
        Lines, without colour codes.
    """
    stdout: Any = sys.stdout
    if stdout is not None and getattr(stdout, "isatty", lambda: False)():
        try:
            from rich.console import Console
        except ImportError:
            return plain(report)
        console = Console(file=io.StringIO(), width=Console().width, color_system=None)
        console.print(rich_table(report))
        drawn: Any = console.file
        return str(drawn.getvalue()).rstrip()
    return plain(report)


def plain(report: CostReport) -> str:
    """Return the table as plain text.

    Args:
        report: The report.

    Returns:
        Lines.
    """
    lines = aligned([HEAD, *(row.cells() for row in rows(report))])
    return "\n".join([*lines, *notes(report)])


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Align a table's cells: the first column at the left, the others at the right.

    Args:
        table: Rows of cells, the head first.

    Returns:
        A line for each row.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]


def rich_table(report: CostReport) -> Any:
    """Return the table as something a rich console prints.

    Args:
        report: The report.

    Returns:
        A renderable.

    Raises:
        ImportError: If rich is missing.
    """
    try:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text
    except ImportError as error:
        raise _missing_extra("rich") from error
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for i, title in enumerate(HEAD):
        table.add_column(title, justify="right" if i else "left", no_wrap=not i)
    for row in rows(report):
        style = "bold" if row.role == "total" else "italic" if row.kind == "estimated" else ""
        table.add_row(*map(Text, row.cells()), style=style)
    return Group(table, *(Text(note, style="dim") for note in notes(report)))


_STYLE = """
.gkt-costs{color:inherit;font-variant-numeric:tabular-nums}
.gkt-costs table{border-collapse:collapse;background:transparent;color:inherit}
.gkt-costs th,.gkt-costs td{padding:.25em .7em;text-align:right;background:transparent;
color:inherit;border:0;border-bottom:1px solid rgba(128,128,128,.3);white-space:nowrap}
.gkt-costs th:first-child,.gkt-costs td:first-child{text-align:left}
.gkt-costs tr.gkt-total td{font-weight:600;border-top:2px solid rgba(128,128,128,.6)}
.gkt-costs tr.gkt-estimated td{font-style:italic;opacity:.8}
.gkt-costs td.gkt-model{padding-left:1.8em}
.gkt-costs ul{margin:.6em 0 0;padding-left:1.2em;opacity:.8;font-size:.9em}
"""


def html(report: CostReport) -> str:
    """Return the table as HTML that takes the page's own colours.

    Args:
        report: The report.

    Returns:
        An element.
    """
    body = []
    for row in rows(report):
        css = "gkt-total" if row.role == "total" else f"gkt-{row.kind}"
        first, *rest = (escape(cell.strip()) for cell in row.cells())
        name = f'<td class="gkt-model">{first}</td>' if row.name[0] == " " else f"<td>{first}</td>"
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        body.append(f'<tr class="{css}">{name}{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in HEAD)
    said = "".join(f"<li>{escape(note)}</li>" for note in notes(report))
    return (
        f'<div class="gkt-costs"><style>{_STYLE}</style><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table><ul>{said}</ul></div>"
    )


def frame(report: CostReport) -> pandas.DataFrame:
    """Return the table as a DataFrame; see `CostReport.to_frame`."""
    try:
        import pandas
    except ImportError as error:
        raise _missing_extra("pandas") from error
    lines = []
    for row in rows(report):
        values = row.counts.to_dict()
        unreported = values.pop("unreported")
        values["unreported_cost"] = unreported["cost"]
        for name, value in values.items():
            if name.endswith("cost") or name == "prompt_cost_if_cached":
                values[name] = None if value is None else Decimal(value)
        lines.append({"role": row.role, "model": row.model, "kind": row.kind, **values})
    return pandas.DataFrame(lines).set_index(["role", "model"])


def _missing_extra(package: str) -> ImportError:
    return ImportError(f'{package} is not installed: pip install "langchain-gkt[report]"')
