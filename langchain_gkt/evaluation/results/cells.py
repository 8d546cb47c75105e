"""The formats of cells in the tables of evaluations."""

from __future__ import annotations

from decimal import Decimal

from langchain_gkt.evaluation.results.outcomes import OperatingPoint
from langchain_gkt.evaluation.results.summary import Summary


def percent(value: float) -> str:
    """Format a share in percent."""
    return f"{value * 100:.1f}%"


def accuracy(answers: Summary | OperatingPoint) -> str:
    """Format the accuracy with its interval."""
    low, high = (round(100 * end) for end in answers.interval)
    return f"{percent(answers.accuracy)} ({low}-{high})"


def leak(summary: Summary) -> str:
    """Format how often the guidance alone contains the answer."""
    return "-" if summary.length is None else percent(summary.leaked)


def dollars(cost: Decimal | str | None) -> str:
    """Format US dollars, or say that they are unknown."""
    return "unknown" if cost is None else f"${Decimal(cost):.6f}"


def per_thousand(summary: Summary) -> str:
    """Format the cost of a thousand answers, or say that it is unknown."""
    return "unknown" if summary.cost is None else f"{summary.cost * 1000 / summary.rows:.4f}"


def of_bill(summary: Summary, base: Summary | None) -> str:
    """Format the cost as a share of the cost of other answers to the same rows."""
    if summary.cost is None or base is None:
        return "?"
    return ratio(summary.cost, base.cost)


def seconds(duration: float | None) -> str:
    """Format seconds, or say that they were not measured."""
    return "-" if duration is None else f"{duration:.2f}"


def ratio(value: float | Decimal | None, base: float | Decimal | None) -> str:
    """Format a number as a share of another, or say that one is unknown or there is none."""
    return "?" if value is None or not base else percent(float(value / base))  # type: ignore[operator]
