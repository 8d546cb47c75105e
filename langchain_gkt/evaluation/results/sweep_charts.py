"""The charts of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from langchain_gkt.evaluation.results.outcomes import OperatingPoint
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.reporting.charts import COLOURS, Line, line_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = {
    "fixed length": ("o", COLOURS[2]),
    "gated": ("^", COLOURS[3]),
    "both": ("s", COLOURS[4]),
    "agreement": ("D", COLOURS[5]),
    "teacher only": ("*", COLOURS[0]),
    "student only": ("X", COLOURS[1]),
}


def accuracy_chart(
    by_length: Mapping[int, Summary], alone: Summary, further: Mapping[str, Summary]
) -> Figure:
    """Draw accuracy over the guidance length, with its intervals, and the leak."""
    lengths, every = list(by_length), list(by_length.values())
    (_, teacher), (_, student) = _LOOKS["teacher only"], _LOOKS["student only"]
    lines = [
        Line(
            name="guided",
            x=lengths,
            y=[one.accuracy for one in every],
            marker="o",
            colour=_LOOKS["fixed length"][1],
            band=([one.interval[0] for one in every], [one.interval[1] for one in every]),
        ),
        Line(
            name="guidance already holds the answer",
            x=lengths[1:],
            y=[one.leaked for one in every[1:]],
            style=":",
            colour="#666666",
        ),
        Line(name="teacher alone", y=[alone.accuracy], style="--", colour=teacher),
        Line(name="student alone", y=[by_length[0].accuracy], style="-.", colour=student),
        *(Line(name=name, y=[one.accuracy]) for name, one in further.items()),
    ]
    title = f"Accuracy by guidance length, {alone.rows} questions"
    return line_chart(lines, xlabel="guidance tokens", title=title, columns=3)


def frontier_chart(kinds: Mapping[str, list[OperatingPoint]], price: str) -> Figure:
    """Draw accuracy against cost.

    Args:
        kinds: Points by kind or policy, the cheapest first; ``teacher only`` and ``student only``
            may be followed by a comma and a policy.
        price: The unit of the costs.
    """
    lines = []
    for kind, points in kinds.items():
        marker, _ = _LOOKS.get(kind.partition(",")[0], ("o", None))
        _, colour = _LOOKS.get(kind, ("", None))
        alone = marker in "*X"
        lines.append(
            Line(
                name=kind,
                x=[point.cost for point in points],
                y=[point.accuracy for point in points],
                style="none" if alone else "-",
                marker=marker,
                markersize=12 if alone else 5,
                colour=colour,
            )
        )
    ends = [kinds[one][0] for one in ("student only", "teacher only") if kinds.get(one)]
    if len(ends) == 2:
        x, y = [point.cost for point in ends], [point.accuracy for point in ends]
        lines.append(Line(name="random router", x=x, y=y, style=":", colour="#666666"))
    return line_chart(lines, xlabel=price, title="Accuracy for its cost", columns=5, from_zero=True)
