"""Shared parts of a job's stages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_gkt.bulk.chains import read_prompt
from langchain_gkt.bulk.columns import ROW, TEACHER, TeacherResult
from langchain_gkt.bulk.options import BulkOptions
from langchain_gkt.costs.totals import UsageTotals

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """The settings of the stages. `pack_chain` made the chain, `output_names` the names."""

    chain: bytes
    options: BulkOptions
    prompt_column: str
    names: Mapping[str, str]


def read_result(row: Mapping[str, Any], column: str) -> TeacherResult:
    """Read the teacher's result of a row, or check the row if there was no teacher's stage."""
    if TEACHER in row:
        return TeacherResult.from_json(row[TEACHER])
    try:
        read_prompt(row[column], column)
    except (TypeError, ValueError) as error:
        return TeacherResult(error=f"{type(error).__name__}: {error}")
    return TeacherResult()


def spend_student(
    controller: Any, block: pyarrow.Table, settings: StageSettings, totals: UsageTotals
) -> None:
    """Report the student's usage for a block, which names its rows, to the job."""
    import ray

    if totals.calls:
        rows = block.column(settings.options.id_column or ROW).to_pylist()
        source = hashlib.sha256(repr(rows).encode()).hexdigest()
        ray.get(controller.spend_student.remote(source, totals))
