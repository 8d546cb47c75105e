"""The report as one chart: paid, would have paid, and which of it is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_gkt.costs.totals import Counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from langchain_gkt.costs.report import CostReport

# Told apart by colour-blind readers and in print (Okabe and Ito).
_PROMPT, _COMPLETION, _STUDENT = "#56B4E9", "#0072B2", "#E69F00"


def draw(report: CostReport) -> Figure:
    """Draw a report; see `CostReport.plot`.

    Args:
        report: The report.

    Returns:
        A figure that pyplot does not keep, so that a notebook shows it once.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ImportError(
            'matplotlib is not installed: pip install "langchain-gkt[report]"'
        ) from error
    priced = report.total.whole and not report.estimate.counts.unpriced_calls
    bars = _bars(report, priced)
    figure, axes = pyplot.subplots(figsize=(8.5, 1.6 + 0.62 * len(bars)), layout="constrained")
    pyplot.close(figure)
    longest = max((sum(parts) for _, parts, _ in bars), default=0.0) or 1.0
    for place, (_, parts, estimated) in enumerate(bars):
        left = 0.0
        for value, colour in zip(parts, (_PROMPT, _COMPLETION, _STUDENT), strict=True):
            axes.barh(
                place,
                value,
                left=left,
                height=0.6,
                color=colour,
                alpha=0.55 if estimated else 1.0,
                hatch="///" if estimated else None,
                edgecolor="white",
            )
            left += value
        label = f"${left:.3g}" if priced else f"{left:,.0f}"
        axes.text(left + longest * 0.012, place, label, va="center")
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.16)
    axes.set_xlabel("US dollars" if priced else "teacher and student tokens (money not known)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_title(report), loc="left", fontsize=11)
    legend: Any = [
        Patch(color=_PROMPT, label="teacher's prompt"),
        Patch(color=_COMPLETION, label="teacher's completion"),
        Patch(color=_STUDENT, label="student"),
        Patch(facecolor="white", edgecolor="grey", hatch="///", label="estimated"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _bars(report: CostReport, priced: bool) -> list[tuple[str, list[float], bool]]:
    """Return each bar's name, its parts, and whether it is estimated."""
    bars = [("paid in all\n(measured)", _parts(report.teacher, report.student, priced), False)]
    guided, alone = report.estimate.guided, report.estimate.counts
    if report.estimate.calls:
        # Both models' tokens are summed there, so the student's money shows as completion.
        if guided.calls != report.total.calls:
            name = f"{report.estimate.calls} guided calls\n(measured)"
            bars.append((name, _parts(guided, Counts(), priced), False))
        name = "the same, teacher only\n(estimated)"
        bars.append((name, _parts(alone, Counts(), priced), True))
    if report.comparison:
        for mode in ("guided", "teacher"):
            counts = report.comparison.counts[mode]
            name = f"{report.comparison.questions} compared: {mode}\n(measured)"
            bars.append((name, _parts(counts, Counts(), priced), False))
    return bars


def _parts(teacher: Counts, student: Counts, priced: bool) -> list[float]:
    if not priced:
        own = student.prompt_tokens + student.completion_tokens
        return [float(teacher.prompt_tokens), float(teacher.completion_tokens), float(own)]
    spent = float(student.known_cost + teacher.machine_cost)
    return [float(teacher.prompt_cost), float(teacher.completion_cost), spent]


def _title(report: CostReport) -> str:
    if report.comparison:
        one = report.comparison
        text = f"Guided answers cost {one.ratio:.0%} of teacher only"
        if one.interval:
            low, high = one.interval
            text += f" ({one.confidence:.0%} interval {low:.0%} to {high:.0%})"
        return f"{text},\nmeasured on {one.questions} questions"
    if report.ratio is not None:
        return f"Guided answers cost {report.ratio:.0%} of teacher only (estimated)"
    return "What the answers took"
