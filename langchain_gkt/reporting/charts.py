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
"""Distinct for colour-blind readers and in print (Okabe and Ito)."""


def new_figure(width: float = 8, height: float = 4.2, panels: int = 1) -> tuple[Figure, list[Any]]:
    """Begin a chart that pyplot does not keep, so that a notebook shows it once.

    Its size is in inches. ``panels`` axes stand side by side.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise missing_extra("matplotlib") from error
    figure: Figure
    size: Any = {"figsize": (width, height), "layout": "constrained"}
    figure, [every] = pyplot.subplots(1, panels, squeeze=False, **size)
    pyplot.close(figure)
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(every)


def percent_axis(axes: Any) -> None:
    """Make an axis count shares in percent, with lines across the chart."""
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


@dataclass(frozen=True, kw_only=True)
class StackedBar:
    """One bar of `stacked_bars`.

    Attributes:
        name: Its label.
        parts: A value for each series.
        estimated: Whether its values are estimates, which are hatched. None where no bar of the
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
    """Draw horizontal bars from the top down, each the sum of its parts.

    Args:
        bars: The bars.
        series: Name and colour of each part of a bar.
        xlabel: The meaning of the values.
        value_format: Format of a bar's sum, as for `str.format`.
        title: The chart's title.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure, [axes] = new_figure(8.5, 1.6 + 0.62 * len(bars))
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
    """Save figures, by file name, as PNG and SVG. The folder is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            files.append(folder / f"{name}.{suffix}")
            write_figure(figure, files[-1], name, suffix)
    return files


def write_figure(figure: Figure, file: Any, name: str, suffix: str) -> None:
    """Write a figure as ``png`` or ``svg`` to a path or a text stream, always the same bytes.

    ``name`` must be different for each figure of one page.
    """
    import matplotlib

    metadata: Any = {"Date": None} if suffix == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format=suffix, dpi=150, metadata=metadata)
