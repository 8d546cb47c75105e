"""A report's rows and notes, drawn as a table, a DataFrame and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from langchain_gkt.costs.comparison import BillComparison
from langchain_gkt.costs.totals import Estimate, UsageTotals
from langchain_gkt.reporting.charts import StackedBar, stacked_bars
from langchain_gkt.reporting.html import missing_extra
from langchain_gkt.reporting.table import RowStyle, Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_HEAD = ("", "calls", "prompt tok", "completion tok", "prompt $", "completion $", "total $")
# Distinct for colour-blind readers and in print (Okabe and Ito).
_SERIES = {
    "teacher's prompt": "#56B4E9",
    "teacher's completion": "#0072B2",
    "student": "#E69F00",
}


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """One row of a report.

    Attributes:
        role: ``teacher``, ``student``, ``total``, ``unreported``, ``teacher only``, ``teacher
            only, naive`` or ``compared: {mode}``.
        model: A model's name, or ``all``.
        kind: ``measured`` or ``estimated``.
        totals: Its sums.
    """

    role: str
    model: str = "all"
    kind: Literal["measured", "estimated"] = "measured"
    totals: UsageTotals

    @property
    def name(self) -> str:
        """Its label. A single model is indented below its role."""
        if self.model != "all":
            return f"  {self.model}"
        return f"{self.role} (estimated)" if self.kind == "estimated" else self.role

    @property
    def style(self) -> RowStyle:
        """Its style in a table."""
        if self.role == "total":
            return "total"
        return "estimated" if self.kind == "estimated" else ""

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        totals, known = self.totals, not self.totals.unpriced_calls
        money = (totals.prompt_cost, totals.completion_cost, totals.known_cost)
        return (
            self.name,
            f"{totals.calls:,}",
            f"{totals.prompt_tokens:,}",
            f"{totals.completion_tokens:,}",
            *(_money(value, known, totals.complete) for value in money),
        )


def _money(money: Decimal, known: bool, complete: bool) -> str:
    if complete:
        return f"{money:.6f}"
    if money:
        return f"{money:.6f} + ?"
    return "unknown" if known else "unpriced"


def report_rows(
    roles: Mapping[str, UsageTotals],
    models: Mapping[tuple[str, str], UsageTotals],
    estimate: Estimate,
    comparison: BillComparison | None,
) -> list[ReportRow]:
    """Return each role, with its models if there are several, the estimates and the comparison."""
    rows = []
    for role, totals in roles.items():
        rows.append(ReportRow(role=role, totals=totals))
        named = [(model, sums) for (owner, model), sums in sorted(models.items()) if owner == role]
        if len(named) > 1:
            rows += [ReportRow(role=role, model=model, totals=sums) for model, sums in named]
    unreported = _unreported(roles["total"])
    if unreported.calls:
        rows.append(ReportRow(role="unreported", kind="estimated", totals=unreported))
    if estimate.calls:
        alone = estimate.cheapest
        rows.append(ReportRow(role="teacher only", kind="estimated", totals=alone))
        if estimate.naive.known_cost > alone.known_cost:
            naive = ReportRow(role="teacher only, naive", kind="estimated", totals=estimate.naive)
            rows.append(naive)
    if comparison:
        rows += [
            ReportRow(role=f"compared: {mode}", totals=totals)
            for mode, totals in comparison.counts.items()
        ]
    return rows


def _unreported(totals: UsageTotals) -> UsageTotals:
    """Return the unreported part as sums of its own."""
    return UsageTotals(
        calls=totals.unreported_calls,
        prompt_tokens=totals.unreported_prompt_tokens,
        completion_tokens=totals.unreported_completion_tokens,
        prompt_cost=totals.unreported_prompt_cost,
        completion_cost=totals.unreported_completion_cost,
        unpriced_calls=totals.unreported_unpriced_calls,
    )


def role_notes(name: str, totals: UsageTotals) -> list[str]:
    """Return what the table cannot show of a role, in sentences."""
    notes = [f"{name} price: {source}" for source in sorted(totals.sources)]
    if totals.cached_prompt_tokens or totals.written_prompt_tokens:
        notes.append(f"{name} prompt tokens: {_prompts(totals)}")
    if near := totals.nearly_cached_calls:
        notes.append(
            f"{name}: {near} call(s) with prompts of {totals.nearly_cached_tokens // near:,} "
            "tokens on average were just too short for the provider's cache: if they begin alike, "
            "a few more tokens in front would make them cheaper"
        )
    if totals.calls:
        notes.append(_times(name, totals))
    for number, words in (
        (totals.failed_calls, "failed"),
        (totals.retries, "repeated a failed one"),
        (totals.cache_hits, "came from the cache, free"),
        (totals.unpriced_calls, "are unpriced: their money is not in the table"),
    ):
        if number:
            notes.append(f"{name}: {number} call(s) {words}")
    if totals.unknown_details:
        names = ", ".join(sorted(totals.unknown_details))
        notes.append(f"{name}: the provider names tokens as {names}; billed as plain tokens")
    if unreported := totals.unreported_calls:
        note = f"{unreported} call(s) reported no usage; estimated apart, not in the sums"
        if not totals.unlimited_calls:
            note += f", at most {totals.unreported_completion_limit:,} completion tokens"
        notes.append(f"{name}: {note}")
    return notes


def _prompts(totals: UsageTotals) -> str:
    parts = []
    for kind in ("uncached", "cached", "written"):
        tokens = getattr(totals, f"{kind}_prompt_tokens")
        money = getattr(totals, f"{kind}_prompt_cost")
        parts.append(f"{tokens:,} {kind} ({_money(money, True, not totals.unpriced_calls)} $)")
    return ", ".join(parts)


def _times(name: str, totals: UsageTotals) -> str:
    text = f"{name}: {totals.seconds:.2f} s in calls"
    if totals.first_token_calls:
        mean = totals.first_token_seconds / totals.first_token_calls
        text += f", first token after {mean:.3f} s on average of {totals.first_token_calls}"
    if totals.machine_cost:
        text += f"; machine busy {totals.busy_seconds:.2f} s = ${totals.machine_cost:.6f}"
    return text


def estimate_notes(data: Mapping[str, Any]) -> list[str]:
    """Return sentences on the ``teacher_only_estimate`` of the report as data."""
    sentences = []
    if data["ratio"] is not None:
        sentences.append(
            f"guided calls cost {data['ratio']:.0%} of teacher only (estimated); "
            f"{data['guided_prompt_share'] or 0:.0%} of what they cost is prompt, which guidance "
            f"cannot save: it is {data['prompt_share']:.0%} of teacher only's bill"
        )
        if cached := data["if_prompts_were_cached"]:
            sentences.append(
                "if the provider read every prompt from its cache: guided "
                f"${Decimal(cached['guided_cost']):.6f}, teacher only "
                f"${Decimal(cached['cost']):.6f} (estimated)"
            )
    naive = data["naive"]
    if naive and naive["cost"] is not None and naive["cost"] != data["cost"]:
        ratio = "" if naive["ratio"] is None else f": guided calls cost {naive['ratio']:.0%} of it"
        sentences.append(
            f"teacher only is {data['against']}, as it could be asked at the least; naive: on the "
            f"whole conversation at the list price, nothing cached, no batch{ratio} (estimated)"
        )
    if own := data["own_prompt"]:
        sentences.append(
            f"{own['calls']} guided call(s) showed the teacher a prompt of its own; the whole "
            "conversation's prompt tokens are estimated by characters"
        )
    if data["calls"]:
        sentences.append(f"estimate: {data['method']}")
    if data["not_estimated_calls"]:
        sentences.append(f"{data['not_estimated_calls']} guided call(s) not in the estimate")
    return sentences


def budget_note(budget: Mapping[str, Any]) -> str:
    """Return a sentence on the spent part of the ``budget`` of the report as data."""
    limits = [f"{k}={budget[k]}" for k in ("usd", "per_call_usd", "tokens") if budget[k]]
    return (
        f"budget {', '.join(limits)}: ${budget['spent_usd']} and {budget['spent_tokens']:,} "
        f"teacher tokens spent, {budget['refused_calls']} call(s) refused"
    )


def table(rows: Sequence[ReportRow], notes: Sequence[str]) -> Table:
    """Return a report as a table without a title."""
    return Table(
        head=_HEAD,
        rows=[row.cells() for row in rows],
        notes=notes,
        styles=[row.style for row in rows],
    )


def frame(rows: Sequence[ReportRow]) -> pandas.DataFrame:
    """Return a report as a DataFrame. See `CostReport.to_frame`."""
    try:
        import pandas
    except ImportError as error:
        raise missing_extra("pandas") from error
    lines = []
    for row in rows:
        values = row.totals.to_dict()
        unreported = values.pop("unreported")
        values.pop("unknown_details")
        values["unreported_cost"] = unreported["cost"]
        for name, value in values.items():
            if name.endswith("cost") or name == "prompt_cost_if_cached":
                values[name] = None if value is None else Decimal(value)
        lines.append({"role": row.role, "model": row.model, "kind": row.kind, **values})
    return pandas.DataFrame(lines).set_index(["role", "model"])


def chart(
    roles: Mapping[str, UsageTotals],
    estimate: Estimate,
    comparison: BillComparison | None,
    ratio: float | None,
) -> Figure:
    """Draw what was paid and what would have been. If money is unknown, show tokens."""
    priced = roles["total"].complete and not estimate.counts.unpriced_calls

    def bar(name: str, teacher: UsageTotals, student: UsageTotals, kind: str) -> StackedBar:
        if priced:
            local = student.known_cost + teacher.machine_cost
            parts = [teacher.prompt_cost, teacher.completion_cost, local]
        else:
            local = Decimal(student.prompt_tokens + student.completion_tokens)
            parts = [Decimal(teacher.prompt_tokens), Decimal(teacher.completion_tokens), local]
        sizes = list(map(float, parts))
        return StackedBar(name=f"{name}\n({kind})", parts=sizes, estimated=kind == "estimated")

    none = UsageTotals()
    bars = [bar("paid in all", roles["teacher"], roles["student"], "measured")]
    if estimate.calls:
        # Both models' tokens are summed there, so the student's money shows as completion.
        if estimate.guided.calls != roles["total"].calls:
            bars.append(bar(f"{estimate.calls} guided calls", estimate.guided, none, "measured"))
        bars.append(bar("the same, teacher only", estimate.cheapest, none, "estimated"))
        if estimate.naive.known_cost > estimate.cheapest.known_cost:
            bars.append(bar("teacher only, naive", estimate.naive, none, "estimated"))
    if comparison:
        for mode in ("guided", "teacher"):
            name = f"{comparison.questions} compared: {mode}"
            bars.append(bar(name, comparison.counts[mode], none, "measured"))
    return stacked_bars(
        bars,
        series=_SERIES,
        xlabel="US dollars" if priced else "teacher and student tokens (money not known)",
        value_format="${:.3g}" if priced else "{:,.0f}",
        title=_chart_title(comparison, ratio),
    )


def _chart_title(comparison: BillComparison | None, ratio: float | None) -> str:
    if comparison:
        text = f"Guided answers cost {comparison.ratio:.0%} of teacher only"
        if comparison.interval:
            low, high = comparison.interval
            text += f" ({comparison.confidence:.0%} interval {low:.0%} to {high:.0%})"
        return f"{text},\nmeasured on {comparison.questions} questions"
    if ratio is not None:
        return f"Guided answers cost {ratio:.0%} of teacher only (estimated)"
    return "What the answers took"


def breaker_note(name: str, state: Mapping[str, Any]) -> str:
    """Describe the state of a teacher's circuit breaker, as its ``to_dict`` tells it."""
    now = {
        "open": f"asked again in {state['seconds_left']:.0f} s",
        "half_open": "to be tried again",
    }
    return (
        f"teacher {name} was left alone {state['opened']} time(s) after failures in a row: "
        f"{state['refused_calls']} call(s) were not made; it is now "
        f"{now.get(state['state'], 'asked as usual')}; last failure: {state['last_failure']}"
    )
