"""The columns that a bulk job adds to a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_gkt.errors import refuse_unknown
from langchain_gkt.evaluation.running.records import ModelUsage

if TYPE_CHECKING:
    import pyarrow

OUTPUT_COLUMNS = {
    "answer": "The whole answer; null if the row failed.",
    "error": "Why the row failed; null if it did not.",
    "guidance": "What of the answer the teacher wrote, as the student read it.",
    "finished_by": "teacher or student; null if the row failed.",
    "fallback": "Why the student answered without guidance it should have had, or null.",
    "finish_reason": "Why the answer ended.",
    "guidance_key": "The content hash under which the guidance is kept.",
    "teacher_calls": "Calls of the teacher that this row carries; 0 if another row carries them.",
    "teacher_prompt_tokens": "Their prompt tokens.",
    "teacher_completion_tokens": "Their completion tokens.",
    "teacher_cost": "Their US dollars; null if unknown.",
    "student_prompt_tokens": "The student's prompt tokens, guidance included.",
    "student_completion_tokens": "The student's completion tokens.",
    "student_cost": "Its US dollars; null if unknown.",
    "cost": "US dollars of both; null if either is unknown.",
    "unreported_calls": "Calls that may have been billed without reporting their usage.",
}
"""Columns that a job adds to each row, by name. Costs are exact decimals."""

ROW, TEACHER = "__gkt_row", "__gkt_teacher"
"""Columns between the stages: the row's number, and the teacher's result."""

OutputColumns: TypeAlias = Mapping[str, str] | Sequence[str] | None
"""Which of `OUTPUT_COLUMNS` to add: some names, or names with new names. None for all."""

_PLACES = Decimal(1).scaleb(-18)
_NOTHING = ModelUsage()


def output_names(columns: OutputColumns) -> dict[str, str]:
    """Read which columns to add.

    Returns:
        Names of `OUTPUT_COLUMNS` with the columns' names in the dataset.

    Raises:
        TypeError: If a name is unknown, or the whole is of another type.
        ValueError: If two columns would have the same name.
    """
    if columns is None:
        columns = tuple(OUTPUT_COLUMNS)
    if isinstance(columns, str) or not isinstance(columns, Mapping | Sequence):
        raise TypeError(
            "output_columns must be names such as ['answer', 'cost'], or a mapping from such "
            f"names to columns, not {columns!r}"
        )
    names = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    refuse_unknown(names, OUTPUT_COLUMNS, "output_columns")
    if len(set(names.values())) < len(names):
        raise ValueError(f"output_columns={names} gives two columns the same name")
    return names


@dataclass(kw_only=True)
class TeacherResult:
    """A row's data from the teacher's stage to the student's stage. All of it becomes JSON.

    Attributes:
        key: The key of the guidance.
        reply: The teacher's `TeacherReply` as a dict. None if it was not asked.
        guidance: The part of it that the student continues.
        finished: Whether nothing is left to the student.
        fallback: Why the student has to answer alone.
        part: The row's part of the teacher's bill.
    """

    key: str | None = None
    reply: dict[str, Any] | None = None
    guidance: str = ""
    finished: bool = False
    finish_reason: str | None = None
    error: str | None = None
    fallback: str | None = None
    part: ModelUsage = field(default_factory=ModelUsage)

    def to_json(self) -> str:
        """Return it as text for a column."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TeacherResult:
        """Undo `to_json`."""
        data = json.loads(text)
        return cls(**{**data, "part": ModelUsage(**data["part"])})

    @property
    def needs_student(self) -> bool:
        """Whether the student has something to write."""
        return self.error is None and not self.finished


def row_values(
    result: TeacherResult, student: ModelUsage = _NOTHING, **answer: str | None
) -> dict[str, Any]:
    """Return a row's values by the names of `OUTPUT_COLUMNS`.

    Args:
        result: The result of the teacher's stage.
        student: The student's part of the bill.
        **answer: The columns from ``answer`` to ``finish_reason``. Null if they are left out.
    """
    teacher = result.part
    costs = (_money(teacher.cost), _money(student.cost))
    return {
        **dict.fromkeys(OUTPUT_COLUMNS),
        **answer,
        "guidance_key": result.key,
        "teacher_calls": teacher.calls,
        "teacher_prompt_tokens": teacher.prompt_tokens,
        "teacher_completion_tokens": teacher.completion_tokens,
        "teacher_cost": costs[0],
        "student_prompt_tokens": student.prompt_tokens,
        "student_completion_tokens": student.completion_tokens,
        "student_cost": costs[1],
        "cost": None if costs[0] is None or costs[1] is None else costs[0] + costs[1],
        "unreported_calls": teacher.unreported + student.unreported,
    }


def values_without_student(result: TeacherResult) -> dict[str, Any]:
    """Return the values of a row that the teacher finished, or that failed there."""
    if result.error is not None:
        return row_values(result, error=result.error)
    return row_values(
        result,
        answer=result.guidance,
        guidance=result.guidance,
        finished_by="teacher",
        finish_reason=result.finish_reason,
    )


def _money(amount: Decimal | None) -> Decimal | None:
    """Round to the column's precision, which only costs by the hour can exceed."""
    return None if amount is None else amount.quantize(_PLACES)


def add_columns(
    table: pyarrow.Table, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> pyarrow.Table:
    """Add each row's values to a block, and drop the columns between the stages.

    The types of the new columns are the same in every block.
    """
    table = table.drop_columns([name for name in (ROW, TEACHER) if name in table.column_names])
    for name, column in names.items():
        table = table.append_column(column, _as_array(name, [row[name] for row in rows]))
    return table


def _as_array(name: str, values: list[Any]) -> Any:
    import pyarrow

    if name.endswith("cost"):
        kind = pyarrow.decimal128(38, 18)
    elif name.endswith(("tokens", "calls")):
        kind = pyarrow.int64()
    else:
        # Some models write half a character, which Arrow cannot hold.
        values = [
            value if value is None else value.encode(errors="replace").decode() for value in values
        ]
        kind = pyarrow.string()
    return pyarrow.array(values, kind)
