"""The choices of one length for all questions, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_gkt.evaluation.results.base import percent, share
from langchain_gkt.evaluation.results.frontier import Choice
from langchain_gkt.reporting.table import Table


def choice_tables(found: Mapping[str, Choice], max_loss: float) -> list[Table]:
    """Say what was chosen, and what it gives on unseen rows.

    Args:
        found: Choices by kind.
        max_loss: Accuracy that they may give up.

    Returns:
        One table; none if there is no choice.
    """
    if not found:
        return []
    return [
        Table(
            title=f"The cheapest within {100 * max_loss:g} points of the best length",
            head=[
                "kind",
                "guidance",
                "asks below",
                "seen",
                "unseen (95%)",
                "best length",
                "of cost",
            ],
            rows=[
                [
                    kind,
                    one.chosen.guidance,
                    one.chosen.gate,
                    percent(one.chosen.accuracy),
                    share(one.unseen.accuracy, one.unseen.interval),
                    share(one.best.accuracy, one.best.interval),
                    percent(one.unseen.cost / one.best.cost) if one.best.cost else "?",
                ]
                for kind, one in found.items()
            ],
            notes=[
                f"chosen on {next(iter(found.values())).seen_rows} rows (seen), tested on the "
                "others (unseen); best length: what was most accurate on the seen rows, on the "
                "unseen ones; of cost: of that length's",
            ],
        )
    ]
