"""The student's stage: an actor that holds the student and finishes the teacher's beginnings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult

from langchain_gkt.bulk.chains import read_prompt, unpack_chain
from langchain_gkt.bulk.columns import (
    TEACHER,
    TeacherResult,
    add_columns,
    row_values,
    values_without_student,
)
from langchain_gkt.bulk.stages import StageSettings, read_result, spend_student
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.costs import CostTracker, MachineTime
from langchain_gkt.errors import BudgetExceeded
from langchain_gkt.evaluation.running.records import ModelUsage, TeacherReply, part_of
from langchain_gkt.evaluation.running.replay import ReplayedReply, ReplayTeacher
from langchain_gkt.students.protocol import student_of

if TYPE_CHECKING:
    import pyarrow


class _AbsentTeacher(BaseChatModel):
    """Stands in for a teacher that was not reached, so that the chain falls back on its student."""

    reason: str

    @property
    def _llm_type(self) -> str:
        return "gkt-absent"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise BudgetExceeded(self.reason, student_may_answer=True)


class _CallIds(BaseCallbackHandler):
    """Notes which calls of the chain belong to a row, even a failed one."""

    run_inline = True
    gkt_children = True

    def __init__(self) -> None:
        self.found: set[str] = set()

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: Any = None, **kwargs: Any
    ) -> None:
        """Note the call that a model's run belongs to."""
        if call_id := (metadata or {}).get("gkt_call_id"):
            self.found.add(str(call_id))


class StudentStage:
    """Finishes the rows of a block. Rows that the teacher finished pass through."""

    def __init__(self, settings: StageSettings, controller: Any) -> None:
        """Make the chain in this process, and load its student."""
        self.settings, self.controller = settings, controller
        self.chain = unpack_chain(settings.chain)
        self.at_once = 2 * getattr(self.chain.student, "max_batch_size", 8)
        if strategy_of(self.chain.mode).asks_student:
            # A student that cannot be loaded ends the job here, and not row by row.
            student_of(self.chain.student).check([HumanMessage("?")])

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        """Finish the rows of a block, and add its output columns."""
        column = self.settings.prompt_column
        wanted = [name for name in (column, TEACHER) if name in block.column_names]
        rows = [(row[column], read_result(row, column)) for row in block.select(wanted).to_pylist()]
        tracker = CostTracker(student_price=self.settings.options.student_price, keep_calls=True)
        with ThreadPoolExecutor(max(1, min(self.at_once, len(rows)))) as pool:
            results = list(pool.map(partial(self._finish, tracker), rows))
        spend_student(self.controller, block, self.settings, tracker.report().student)
        return add_columns(block, results, self.settings.names)

    def _finish(self, tracker: CostTracker, row: tuple[str, TeacherResult]) -> dict[str, Any]:
        prompt, teacher = row
        if not teacher.needs_student:
            return values_without_student(teacher)
        chain, ids = self.chain, _CallIds()
        if teacher.reply is not None:
            replayed = ReplayedReply(TeacherReply.from_dict(teacher.reply))
            chain = chain.model_copy(update={"teacher": ReplayTeacher(reply=replayed)})
        elif teacher.fallback is not None:
            chain = chain.model_copy(update={"teacher": _AbsentTeacher(reason=teacher.fallback)})
        try:
            message = chain.invoke(
                read_prompt(prompt, self.settings.prompt_column), {"callbacks": [tracker, ids]}
            )
        except Exception as error:  # noqa: BLE001  one row's failure is its own
            failed = f"{type(error).__name__}: {error}"
            return row_values(teacher, self._part(tracker, ids), error=failed)
        gkt = message.response_metadata["gkt"]
        return row_values(
            teacher,
            self._part(tracker, ids),
            answer=str(message.text),
            guidance=gkt["guidance"],
            finished_by=gkt["finished_by"],
            fallback=teacher.fallback or gkt["fallback"],
            finish_reason=message.response_metadata.get("finish_reason"),
        )

    def _part(self, tracker: CostTracker, ids: _CallIds) -> ModelUsage:
        """Return the student's part of the calls that belong to one row."""
        calls = [call for call in list(tracker.calls) if call.call_id in ids.found]
        part = part_of(calls, "student")
        if isinstance(self.settings.options.student_price, MachineTime):
            # The machine's time is known, even if a failed call reported no tokens.
            spent = sum((call.counts.machine_cost for call in calls), Decimal(0))
            return replace(part, prompt_cost="0", completion_cost=str(spent))
        return part
