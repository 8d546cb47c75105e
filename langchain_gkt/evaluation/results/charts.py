"""Charts of an evaluation, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results.frontier import OperatingPoint
from langchain_gkt.evaluation.results.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by colour-blind readers (Okabe and Ito), and by shape in print.
_COLOURS = {
    "teacher": "#0072B2",
    "student": "#E69F00",
    "guided": "#009E73",
    "teacher only": "#0072B2",
    "student only": "#E69F00",
    "fixed length": "#009E73",
    "gated": "#CC79A7",
    "both": "#D55E00",
}
_SHAPES = {"fixed length": "o", "gated": "^", "both": "s", "teacher only": "*", "student only": "X"}


def accuracy_by_length(by_length: Mapping[int, Summary], teacher: Summary) -> Figure:
    """Draw accuracy over the guidance length, with its intervals, and the leak.

    Args:
        by_length: Sums by guidance length, 0 included.
        teacher: The teacher alone.

    Returns:
        A figure that pyplot does not keep.
    """
    figure, axes = _figure()
    lengths = list(by_length)
    found = list(by_length.values())
    axes.fill_between(
        lengths,
        [one.interval[0] for one in found],
        [one.interval[1] for one in found],
        color=_COLOURS["guided"],
        alpha=0.2,
        linewidth=0,
        label="95% interval",
    )
    axes.plot(
        lengths, [one.accuracy for one in found], "o-", color=_COLOURS["guided"], label="guided"
    )
    axes.plot(
        lengths[1:],
        [one.leaked for one in found][1:],
        ":",
        color="#666666",
        label="guidance already holds the answer",
    )
    axes.axhline(teacher.accuracy, color=_COLOURS["teacher"], ls="--", label="teacher alone")
    axes.axhline(by_length[0].accuracy, color=_COLOURS["student"], ls="-.", label="student alone")
    axes.set(xlabel="guidance tokens", ylabel="accuracy", ylim=(0, 1.03))
    axes.set_title(f"Accuracy by guidance length, {teacher.rows} questions", loc="left")
    _percent(axes)
    _legend(figure, axes, 3)
    return figure


def frontier(kinds: Mapping[str, Sequence[OperatingPoint]], price: str) -> Figure:
    """Draw accuracy against cost.

    Args:
        kinds: Points by kind or policy, the cheapest first; ``teacher only`` and ``student only``
            may be followed by a comma and a policy.
        price: The unit of the costs.

    Returns:
        A figure.
    """
    figure, axes = _figure()
    for kind, points in kinds.items():
        known = kind.partition(",")[0]
        alone = known in ("teacher only", "student only")
        axes.plot(
            [point.cost for point in points],
            [point.accuracy for point in points],
            linestyle="none" if alone else "-",
            marker=_SHAPES.get(known, "o"),
            markersize=12 if alone else 5,
            color=_COLOURS.get(kind),
            label=kind,
            alpha=0.9,
        )
    axes.set(xlabel=price, ylabel="accuracy", ylim=(0, 1.03))
    axes.set_xlim(left=0)
    axes.set_title("Accuracy for its cost", loc="left")
    _percent(axes)
    _legend(figure, axes, 5)
    return figure


def modes(summaries: Sequence[Summary]) -> Figure:
    """Draw the modes' accuracy, and what the teacher costs per answer, its prompts apart.

    Args:
        summaries: The modes' sums.

    Returns:
        A figure.
    """
    pyplot = _pyplot()
    figure: Figure
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    pyplot.close(figure)
    names = [one.mode for one in summaries]
    colours = [_COLOURS[one.mode] for one in summaries]
    errors = [
        [one.accuracy - one.interval[0] for one in summaries],
        [one.interval[1] - one.accuracy for one in summaries],
    ]
    left.bar(names, [one.accuracy for one in summaries], color=colours, yerr=errors, capsize=4)
    left.set_ylim(0, 1.05)
    left.set_title(f"Accuracy, {summaries[0].rows} questions (95%)", loc="left", fontsize=11)
    _percent(left)
    priced = all(one.teacher.cost is not None for one in summaries)
    for part, begin, alpha in _cost_bars(summaries, priced):
        right.bar(names, part, bottom=begin, color=colours, alpha=alpha)
    right.set_ylabel("$ per 1,000 answers" if priced else "teacher tokens per answer")
    right.set_title("The teacher's price (pale: its prompts)", loc="left", fontsize=11)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _cost_bars(
    summaries: Sequence[Summary], priced: bool
) -> list[tuple[list[float], list[float], float]]:
    """Return heights, bottoms and opacity of the prompts' bars and of the completions'."""
    prompts, completions = [], []
    for one in summaries:
        teacher = one.teacher
        if priced:
            prompts.append(float(teacher.prompt_cost or 0) * 1000 / one.rows)
            completions.append(float(teacher.completion_cost or 0) * 1000 / one.rows)
        else:
            prompts.append(teacher.prompt_tokens / one.rows)
            completions.append(teacher.completion_tokens / one.rows)
    return [(prompts, [0.0] * len(prompts), 0.45), (completions, prompts, 1.0)]


def time_split(times: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw where an answer's time goes.

    Args:
        times: Mean seconds by mode and by what they went to.

    Returns:
        A figure.
    """
    figure, axes = _figure(1.3 + 0.55 * len(times))
    colours = {"teacher": "#0072B2", "prefill": "#F0E442", "decode": "#E69F00"}
    labels = {
        "teacher": "waiting for the teacher",
        "prefill": "student: to its first token",
        "decode": "student: its other tokens",
    }
    longest = max(sum(parts.values()) for parts in times.values()) or 1.0
    for place, parts in enumerate(times.values()):
        left = 0.0
        for name, seconds in parts.items():
            axes.barh(place, seconds, left=left, height=0.6, color=colours[name], edgecolor="white")
            left += seconds
        axes.text(left + longest * 0.012, place, f"{left:.2f} s", va="center")
    axes.set_yticks(range(len(times)), list(times))
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.15)
    axes.set_xlabel("seconds per answer (mean, under the run's load)")
    axes.set_title("Where the time goes", loc="left")
    from matplotlib.patches import Patch

    handles = [Patch(color=colours[name], label=labels[name]) for name in colours]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Save figures as PNG and SVG.

    Args:
        figures: Figures by file name.
        folder: Where to; made if it does not exist.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            file = folder / f"{name}.{suffix}"
            write_figure(figure, file, name, suffix)
            files.append(file)
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


def _figure(height: float = 4.2) -> tuple[Figure, Any]:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
    pyplot.close(figure)  # so that a notebook shows it once
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            'matplotlib is not installed: pip install "langchain-gkt[report]"'
        ) from error
    return pyplot


def _percent(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Any, axes: Any, columns: int) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
