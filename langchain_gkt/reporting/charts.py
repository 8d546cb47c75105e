"""Charts that costs and evaluation share, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_gkt.reporting.html import missing_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
"""Told apart by colour-blind readers and in print (Okabe and Ito)."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of `line_chart`.

    Attributes:
        name: What the legend calls it.
        y: Its values, shares from 0 to 1.
        x: Where they are; None for one value that holds everywhere.
        style: matplotlib's line style.
        marker: matplotlib's marker.
        markersize: Its size in points.
        colour: None for matplotlib's next one.
        band: Lower and upper ends of an interval around each value.
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] | None = None
    style: str = "-"
    marker: str = ""
    markersize: float = 6
    colour: str | None = None
    band: tuple[Sequence[float], Sequence[float]] | None = None


def line_chart(
    lines: Sequence[Line], *, xlabel: str, title: str, columns: int, from_zero: bool = False
) -> Figure:
    """Draw accuracies over something.

    Args:
        lines: The lines.
        xlabel: What is counted from left to right.
        title: The chart's title.
        columns: Of the legend.
        from_zero: Whether the axis begins at 0.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure, axes = _figure()
    for line in lines:
        if line.x is None:
            axes.axhline(line.y[0], color=line.colour, ls=line.style, label=line.name)
            continue
        if line.band is not None:
            band = {"color": line.colour, "alpha": 0.2, "linewidth": 0, "label": "95% interval"}
            axes.fill_between(line.x, *line.band, **band)
        axes.plot(
            line.x,
            line.y,
            linestyle=line.style,
            marker=line.marker,
            markersize=line.markersize,
            color=line.colour,
            label=line.name,
            alpha=0.9 if from_zero else None,
        )
    axes.set(xlabel=xlabel, ylabel="accuracy", ylim=(0, 1.03))
    if from_zero:
        axes.set_xlim(left=0)
    axes.set_title(title, loc="left")
    _percent(axes)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


@dataclass(frozen=True, kw_only=True)
class BarPanel:
    """One panel of `bar_panels`.

    Attributes:
        title: What it shows.
        layers: Values of each bar and their opacity, from the bottom up.
        errors: How far the interval of the lowest layer reaches down and up.
        ylabel: What is counted; None for shares from 0 to 1.
    """

    title: str
    layers: Sequence[tuple[Sequence[float], float]]
    errors: Any = None
    ylabel: str | None = None


def bar_panels(names: Sequence[str], colours: Sequence[str], panels: Sequence[BarPanel]) -> Figure:
    """Draw the same bars by several measures, side by side.

    Args:
        names: The bars.
        colours: Theirs, in the same order.
        panels: The measures.

    Raises:
        ImportError: If matplotlib is missing.
    """
    pyplot = _pyplot()
    figure: Figure
    figure, every = pyplot.subplots(1, len(panels), figsize=(8, 3.4), layout="constrained")
    pyplot.close(figure)
    for axes, panel in zip(every, panels, strict=True):
        bottom = [0.0] * len(names)
        for heights, alpha in panel.layers:
            kind = {"color": colours, "alpha": alpha, "yerr": panel.errors, "capsize": 4}
            axes.bar(names, heights, bottom=bottom, **kind)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axes.set_title(panel.title, loc="left", fontsize=11)
        if panel.ylabel is None:
            axes.set_ylim(0, 1.05)
            _percent(axes)
        else:
            axes.set_ylabel(panel.ylabel)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True, kw_only=True)
class StackedBar:
    """One bar of `stacked_bars`.

    Attributes:
        name: What it is called.
        parts: A value for each series.
        estimated: Whether its values are estimates: it is hatched then. None where no bar of the
            chart can be one.
    """

    name: str
    parts: Sequence[float]
    estimated: bool | None = False


def stacked_bars(
    bars: Sequence[StackedBar],
    *,
    series: Mapping[str, str],
    xlabel: str,
    value_format: str,
    title: str,
) -> Figure:
    """Draw horizontal bars, each the sum of its parts.

    Args:
        bars: The bars, from the top down.
        series: Name and colour of each part of a bar.
        xlabel: What the values are.
        value_format: Format of a bar's sum, as for `str.format`.
        title: The chart's title.

    Returns:
        A figure that pyplot does not keep, so that a notebook shows it once.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure, axes = _figure(8.5, 1.6 + 0.62 * len(bars))
    from matplotlib.patches import Patch

    longest = max((sum(bar.parts) for bar in bars), default=0.0) or 1.0
    for place, bar in enumerate(bars):
        left = 0.0
        for value, colour in zip(bar.parts, series.values(), strict=True):
            axes.barh(
                place,
                value,
                left=left,
                height=0.6,
                color=colour,
                alpha=0.55 if bar.estimated else 1.0,
                hatch="///" if bar.estimated else None,
                edgecolor="white",
            )
            left += value
        axes.text(left + longest * 0.012, place, value_format.format(left), va="center")
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.16)
    axes.set_xlabel(xlabel)
    axes.set_title(title, loc="left", fontsize=11)
    legend: Any = [Patch(color=colour, label=name) for name, colour in series.items()]
    if any(bar.estimated is not None for bar in bars):
        legend.append(Patch(facecolor="white", edgecolor="grey", hatch="///", label="estimated"))
    figure.legend(handles=legend, loc="outside lower center", ncols=4, frameon=False)
    return figure


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Save figures, by file name, as PNG and SVG; the folder is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            files.append(folder / f"{name}.{suffix}")
            write_figure(figure, files[-1], name, suffix)
    return files


def write_figure(figure: Figure, file: Any, name: str, suffix: str) -> None:
    """Write a figure, the same bytes for the same figure.

    Args:
        figure: The figure.
        file: A path or a text stream.
        name: Its name, different for each figure of one page.
        suffix: ``png`` or ``svg``.
    """
    import matplotlib

    metadata: Any = {"Date": None} if suffix == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format=suffix, dpi=150, metadata=metadata)


def _figure(width: float = 8, height: float = 4.2) -> tuple[Figure, Any]:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    pyplot.close(figure)  # so that a notebook shows it once
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise missing_extra("matplotlib") from error
    return pyplot


def _percent(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
