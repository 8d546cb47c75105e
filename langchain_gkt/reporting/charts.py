"""Charts that costs and evaluation may share, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_gkt.reporting.html import missing_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class StackedBar:
    """One bar of `stacked_bars`.

    Attributes:
        name: What it is called.
        parts: A value for each series.
        estimated: Whether its values are estimates: it is hatched then.
    """

    name: str
    parts: Sequence[float]
    estimated: bool = False


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
    try:
        from matplotlib import pyplot
        from matplotlib.patches import Patch
    except ImportError as error:
        raise missing_extra("matplotlib") from error
    figure, axes = pyplot.subplots(figsize=(8.5, 1.6 + 0.62 * len(bars)), layout="constrained")
    pyplot.close(figure)
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    legend: Any = [Patch(color=colour, label=name) for name, colour in series.items()]
    legend.append(Patch(facecolor="white", edgecolor="grey", hatch="///", label="estimated"))
    figure.legend(handles=legend, loc="outside lower center", ncols=4, frameon=False)
    return figure
