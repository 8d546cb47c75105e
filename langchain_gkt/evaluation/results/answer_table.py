"""The tidy table behind every group-by: one row for each answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

from langchain_gkt.evaluation.running.records import SWEPT, Answer
from langchain_gkt.modes import Role
from langchain_gkt.reporting.html import missing_extra

if TYPE_CHECKING:
    import pandas

ROLES: tuple[Role, ...] = get_args(Role)
TEACHER, STUDENT = ROLES
"""The strategies of a single model, which all others are measured against."""
TEACHER_ALONE = -1
"""The setting of a teacher that answers alone."""


def answer_table(answers: Iterable[Answer]) -> pandas.DataFrame:
    """Return one row for each answer.

    Returns:
        ``row``, ``strategy`` (the chain's ``mode``), ``guidance_tokens``, ``sample``, and the other
        fields of `Answer`. ``cost`` is in US dollars. Fields of a part have the prefix ``teacher_``
        or ``student_``, metrics ``is_``, and signals ``signal_``.

    Raises:
        ImportError: If pandas is missing.
    """
    try:
        import pandas
    except ImportError as error:
        raise missing_extra("pandas") from error
    lines = []
    for answer in answers:
        fields: dict[str, Any] = answer.to_dict()
        parts = {role: fields.pop(role) for role in ROLES}
        verdicts, signals = fields.pop("verdicts"), fields.pop("signals")
        lines.append(
            {
                "row": fields.pop("row"),
                "strategy": fields.pop("mode"),
                "guidance_tokens": fields.pop("length"),
                **fields,
                "right": answer.right,
                "cost": answer.cost,
                **{f"is_{name}": verdict for name, verdict in verdicts.items()},
                **{f"{role}_{name}": v for role, part in parts.items() for name, v in part.items()},
                **{f"signal_{name}": value for name, value in signals.items()},
            }
        )
    if not lines:
        return pandas.DataFrame(columns=["row", "strategy", "guidance_tokens", "right", "cost"])
    table = pandas.DataFrame(lines)
    times = ["first_token_seconds", *(f"{role}_first_token_seconds" for role in ROLES)]
    return table.astype({"guidance_tokens": "Int64", **dict.fromkeys(times, float)})


def guidance_tokens(table: pandas.DataFrame) -> list[int | None]:
    """Return the column of the same name as plain numbers."""
    column = table["guidance_tokens"]
    return [int(n) if known else None for n, known in zip(column, column.notna(), strict=True)]


def settings_of(table: pandas.DataFrame) -> list[int | str]:
    """Return how each answer was made.

    Returns:
        The guidance tokens of the swept strategy, with 0 for the student alone and `TEACHER_ALONE`.
        The name of any other strategy, with its guidance tokens if it has any.
    """
    settings, ends = list[Any](), {STUDENT: 0, TEACHER: TEACHER_ALONE}
    for strategy, tokens in zip(table["strategy"], guidance_tokens(table), strict=True):
        words = strategy if tokens is None else f"{strategy}, {tokens} tokens"
        settings.append(ends.get(strategy, tokens if strategy == SWEPT else words))
    return settings
