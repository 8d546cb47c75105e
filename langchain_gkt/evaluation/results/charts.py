"""The charts of comparisons and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_gkt.evaluation.results.answer_table import STUDENT, TEACHER
from langchain_gkt.evaluation.results.any_way import Rival
from langchain_gkt.evaluation.results.outcomes import OperatingPoint
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.reporting.charts import COLOURS, new_figure, percent_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEACHER, _STUDENT, _GUIDED = COLOURS[:3]
_GREY = "#666666"
_LOOKS = {
    "fixed length": ("o", _GUIDED),
    "gated": ("^", COLOURS[3]),
    "both": ("s", COLOURS[4]),
    "agreement": ("D", COLOURS[5]),
    "teacher only": ("*", _TEACHER),
    "student only": ("X", _STUDENT),
}


def accuracy_chart(
    by_length: Mapping[int, Summary], alone: Summary, further: Mapping[str, Summary]
) -> Figure:
    """Draw accuracy over the guidance length, with its intervals, and the leak."""
    figure, [axes] = new_figure()
    lengths, every = list(by_length), list(by_length.values())
    lows, highs = zip(*(summary.interval for summary in every), strict=True)
    band = {"color": _GUIDED, "alpha": 0.2, "linewidth": 0, "label": "95% interval"}
    axes.fill_between(lengths, lows, highs, **band)
    accuracy = [summary.accuracy for summary in every]
    axes.plot(lengths, accuracy, marker="o", color=_GUIDED, label="guided")
    leaks = [summary.leaked for summary in every[1:]]
    name = "guidance already holds the answer"
    axes.plot(lengths[1:], leaks, linestyle=":", color=_GREY, label=name)
    axes.axhline(alone.accuracy, color=_TEACHER, linestyle="--", label="teacher alone")
    axes.axhline(by_length[0].accuracy, color=_STUDENT, linestyle="-.", label="student alone")
    for name, summary in further.items():
        axes.axhline(summary.accuracy, label=name)
    axes.set_title(f"Accuracy by guidance length, {alone.rows} questions", loc="left")
    return _of_accuracies(figure, [axes], xlabel="guidance tokens", columns=3)


Points: TypeAlias = Mapping[str, Sequence[OperatingPoint | Rival]]
"""Points by kind or policy, the cheapest first. A comma and a policy may follow ``teacher only``
and ``student only``.
"""


def frontier_chart(kinds: Points, price: str) -> Figure:
    """Draw accuracy against cost. ``price`` is the unit of the costs."""
    return frontier_panels({"Accuracy for its cost": kinds}, price)


def frontier_panels(panels: Mapping[str, Points], price: str) -> Figure:
    """Draw accuracy against cost side by side, by title, on the same scales."""
    figure, every = new_figure(max(8, 4 * len(panels)), panels=len(panels))
    for axes, (title, kinds) in zip(every, panels.items(), strict=True):
        _draw_frontiers(axes, kinds)
        axes.set_title(title, loc="left")
    most = max(axes.get_xlim()[1] for axes in every)
    for axes in every:
        axes.set_xlim(0, most)
    return _of_accuracies(figure, every, xlabel=price, columns=5)


def _draw_frontiers(axes: Any, kinds: Points) -> None:
    for kind, points in kinds.items():
        marker, _ = _LOOKS.get(kind.partition(",")[0], ("o", None))
        _, colour = _LOOKS.get(kind, ("", None))
        look: dict[str, Any] = {"linestyle": "-", "markersize": 5}
        if marker in "*X":
            look = {"linestyle": "none", "markersize": 12}
        costs, accuracies = zip(*((p.cost, p.accuracy) for p in points), strict=True)
        axes.plot(costs, accuracies, marker=marker, color=colour, label=kind, alpha=0.9, **look)
    ends = [kinds[kind][0] for kind in ("student only", "teacher only") if kinds.get(kind)]
    if len(ends) == 2:
        costs, accuracies = zip(*((p.cost, p.accuracy) for p in ends), strict=True)
        axes.plot(costs, accuracies, linestyle=":", color=_GREY, label="random router", alpha=0.9)


def _of_accuracies(figure: Figure, every: list[Any], *, xlabel: str, columns: int) -> Figure:
    for axes in every:
        axes.set(xlabel=xlabel, ylim=(0, 1.03))
        percent_axis(axes)
    every[0].set_ylabel("accuracy")
    handles = every[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def accuracy_and_price_chart(summaries: Mapping[str, Summary]) -> Figure:
    """Draw the accuracy by strategy, and the teacher's cost per answer, its prompts apart."""
    figure, [accuracy_axes, price_axes] = new_figure(8, 3.4, panels=2)
    every, names, others = list(summaries.values()), list(summaries), cycle(COLOURS[2:])
    ends: dict[str, str] = {TEACHER: _TEACHER, STUDENT: _STUDENT}
    colours = [ends.get(mode) or next(others) for mode in summaries]
    accuracy = [summary.accuracy for summary in every]
    errors = [
        [summary.accuracy - summary.interval[0] for summary in every],
        [summary.interval[1] - summary.accuracy for summary in every],
    ]
    accuracy_axes.bar(names, accuracy, color=colours, yerr=errors, capsize=4)
    title = f"Accuracy, {every[0].rows} questions (95%)"
    accuracy_axes.set_title(title, loc="left", fontsize=11)
    accuracy_axes.set_ylim(0, 1.05)
    percent_axis(accuracy_axes)
    priced = all(summary.teacher.cost is not None for summary in every)

    scale, unit = (1000, "cost") if priced else (1, "tokens")

    def each(name: str) -> list[float]:
        parts = [float(getattr(summary.teacher, f"{name}_{unit}") or 0) for summary in every]
        return [scale * part / summary.rows for part, summary in zip(parts, every, strict=True)]

    prompts = each("prompt")
    price_axes.bar(names, prompts, color=colours, alpha=0.45)
    price_axes.bar(names, each("completion"), bottom=prompts, color=colours)
    price_axes.set_title("The teacher's price (pale: its prompts)", loc="left", fontsize=11)
    price_axes.set_ylabel("$ per 1,000 answers" if priced else "teacher tokens per answer")
    return figure
