"""The teacher's stage: an asynchronous actor that asks for guidance, many rows at once."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from langchain_gkt.bulk.chains import GuidanceKeys, read_prompt, settings_of, unpack_chain
from langchain_gkt.bulk.columns import ROW, TEACHER, TeacherResult
from langchain_gkt.bulk.controller import Admission
from langchain_gkt.bulk.stages import StageSettings
from langchain_gkt.chain.steps.teacher_step import TeacherStep
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.costs.aggregator import CostAggregator
from langchain_gkt.costs.budget import Reservation
from langchain_gkt.costs.runs.fork_safe_lock import ForkSafeLock
from langchain_gkt.costs.runs.listener import RunListener
from langchain_gkt.costs.totals import CallRecord, UsageTotals
from langchain_gkt.errors import BudgetExceeded, TeacherError
from langchain_gkt.evaluation.running.records import ModelUsage, TeacherReply, part_of
from langchain_gkt.evaluation.running.replay import ReplayedReply, ReplayTeacher
from langchain_gkt.evaluation.running.reply_recorder import ReplyRecorder
from langchain_gkt.guidance import Guidance
from langchain_gkt.prompts.base import aprepare
from langchain_gkt.teachers.wrappers import models_of

if TYPE_CHECKING:
    import pyarrow

_BUSY_SECONDS = (0.05, 1.0)
"""The first and the longest wait for another row with the same request."""


@dataclass(kw_only=True)
class Row:
    """A row that asks the teacher.

    Attributes:
        at: Its place in the block, for those that share a call.
        name: Its name in the job.
        key: The key of its guidance.
        calls: The calls that it has made.
    """

    at: int
    name: str
    key: str
    prompt: str
    messages: list[BaseMessage]
    calls: list[CallRecord] = field(default_factory=list)

    @property
    def part(self) -> ModelUsage:
        """Its part of the teacher's bill."""
        return part_of(self.calls, "teacher")


@dataclass(eq=False)
class RowEnded(Exception):
    """A row ends without a call, with this result."""

    result: TeacherResult


@dataclass(eq=False)
class _CallFailed(Exception):
    error: Exception
    unanswered: bool


class TeacherStage:
    """Asks the teacher for each row's guidance. A failed row does not fail the others."""

    def __init__(self, settings: StageSettings, controller: Any) -> None:
        """Make the chain in this process, with the handle of the job's `JobController`."""
        self.chain = unpack_chain(settings.chain)
        self.options, self.column = settings.options, settings.prompt_column
        self.call_settings = settings_of(self.chain)
        self.keys = GuidanceKeys(self.chain, questions_per_call=self.options.questions_per_call)
        self.controller = controller
        names = ("teacher_price", "student_price", "scenario")
        self.prices: dict[str, Any] = {name: getattr(self.options, name) for name in names}
        lock = ForkSafeLock()
        # Learns how many tokens the teacher's prompts have, for the reservations.
        self.aggregator = CostAggregator(
            prices=self.options.role_prices, budget=self.options.budget, lock=lock
        )
        self.listener = RunListener(self.aggregator, lock)
        self._slots = asyncio.Semaphore(self.options.calls_per_worker)

    async def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        """Ask for all rows of a block side by side. A new column holds their `TeacherResult`."""
        import pyarrow

        prompts = block.column(self.column).to_pylist()
        names = list(map(str, block.column(self.options.id_column or ROW).to_pylist()))
        results = await self.results_of(names, prompts)
        texts = pyarrow.array([result.to_json() for result in results], pyarrow.string())
        return block.append_column(TEACHER, texts)

    async def results_of(
        self, names: Sequence[str], prompts: Sequence[Any]
    ) -> Sequence[TeacherResult]:
        """Ask for some rows side by side, by their names in the job."""
        return await asyncio.gather(*map(self._result_of, names, prompts))

    def _read(self, name: str, prompt: Any, at: int = 0) -> Row:
        messages = read_prompt(prompt, self.column)
        key = self.keys.of(messages)
        return Row(at=at, name=name, key=key, prompt=prompt, messages=messages)

    async def _result_of(self, name: str, prompt: Any) -> TeacherResult:
        from ray.exceptions import RayError

        try:
            row = self._read(name, prompt)
        except (TypeError, ValueError) as error:
            return TeacherResult(error=f"{type(error).__name__}: {error}")
        try:
            return await self._ask(row)
        except RayError:  # the job's own actor is gone, so no row can continue
            raise
        except Exception as error:  # noqa: BLE001  a teacher prompt of the user's may raise anything
            return TeacherResult(key=row.key, error=f"{type(error).__name__}: {error}")

    async def _ask(self, row: Row) -> TeacherResult:
        """Ask until there is a reply, or the attempts or the budget are used up."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.options.attempts),
            wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 1),
            reraise=True,
            # The answer is paid for, even if it is useless.
            retry=retry_if_exception(
                lambda error: isinstance(error, _CallFailed) and error.unanswered
            ),
        )
        most = await self._most(row.messages)
        try:
            return await retrying(self._attempt, row, most)
        except RowEnded as end:
            return end.result
        except _CallFailed as failed:
            return self._failed(row.key, failed.error, row.part)

    async def _attempt(self, row: Row, most: Reservation) -> TeacherResult:
        pause, longest = _BUSY_SECONDS
        while True:
            async with self._slots:
                admitted: Admission = await self.controller.admit.remote(row.key, row.name, most)
                if admitted.refused is not None:
                    refusal = BudgetExceeded(
                        admitted.refused, student_may_answer=admitted.student_may_answer
                    )
                    raise RowEnded(self._failed(row.key, refusal, row.part))
                if admitted.reply is not None:
                    return await self._recorded(row, admitted)
                if not admitted.busy:
                    await asyncio.sleep(admitted.wait)
                    return await self._call(row)
            await asyncio.sleep(pause)
            pause = min(longest, 2 * pause)

    async def _call(self, row: Row) -> TeacherResult:
        """Make one call, and record its cost before its reply is used."""
        recorder = ReplyRecorder(lambda reply: None, **self.prices)
        config: RunnableConfig = {"callbacks": [recorder, self.listener]}
        guidance, problem = None, None
        try:
            guidance = await self.chain.aguide(row.messages, config)
        except TeacherError as error:
            problem = error
        finally:
            reply = recorder.reply
            await self._settle(row, recorder.report().teacher, reply)
            row.calls += recorder.calls
        if guidance is None or reply is None:
            problem = problem or TeacherError("the teacher gave no reply")
            raise _CallFailed(problem, unanswered=reply is None)
        return self._result(row.key, reply, guidance, row.part)

    async def _settle(self, row: Row, totals: UsageTotals, reply: TeacherReply | None) -> None:
        """End a row's turn, with what its call used."""
        text = None if reply is None else json.dumps(asdict(reply))
        await self.controller.settle.remote(uuid.uuid4().hex, row.key, row.name, totals, text)

    async def _recorded(self, row: Row, admitted: Admission) -> TeacherResult:
        """Read a reply that was paid for earlier, as if it had just come."""
        reply = TeacherReply.from_dict(json.loads(str(admitted.reply)))
        part = add_parts(reply.part, row.part) if admitted.carries else row.part
        teacher = ReplayTeacher(reply=ReplayedReply(reply))
        try:
            guidance = await self.chain.model_copy(update={"teacher": teacher}).aguide(row.messages)
        except TeacherError as error:
            raise RowEnded(self._failed(row.key, error, part)) from error
        return self._result(row.key, reply, guidance, part)

    def _result(
        self, key: str, reply: TeacherReply, guidance: Guidance, part: ModelUsage
    ) -> TeacherResult:
        return TeacherResult(
            key=key,
            reply=asdict(reply),
            guidance=guidance.text,
            finished=guidance.complete or not strategy_of(self.chain.mode).asks_student,
            finish_reason=guidance.finish_reason,
            part=part,
        )

    def _failed(self, key: str, error: Exception, part: ModelUsage) -> TeacherResult:
        """End a row without guidance: as an error, or as work for the student alone."""
        may_fall_back = self.call_settings.fall_back
        alone = error.student_may_answer if isinstance(error, BudgetExceeded) else may_fall_back
        text = f"{type(error).__name__}: {error}"
        if alone and strategy_of(self.chain.mode).student_may_answer:
            return TeacherResult(key=key, fallback=text, part=part)
        return TeacherResult(key=key, error=text, part=part)

    async def _most(self, messages: list[BaseMessage]) -> Reservation:
        """Return the maximum cost of a call, from the teacher's prompt."""
        settings = self.call_settings
        context = TeacherStep(settings).prompt_context(messages)
        prompt = await aprepare(settings.teacher_prompt, messages, context)
        shown = list(prompt.messages)
        return self.aggregator.reservation(list(models_of(settings.teacher)), shown, settings.limit)


def add_parts(part: ModelUsage, other: ModelUsage) -> ModelUsage:
    """Add two parts of one model. Money is unknown if either is."""

    def add(name: str) -> str | None:
        amounts = (getattr(part, name), getattr(other, name))
        return None if None in amounts else str(sum(map(Decimal, amounts)))

    return ModelUsage(
        calls=part.calls + other.calls,
        prompt_tokens=part.prompt_tokens + other.prompt_tokens,
        completion_tokens=part.completion_tokens + other.completion_tokens,
        prompt_cost=add("prompt_cost"),
        completion_cost=add("completion_cost"),
        seconds=part.seconds + other.seconds,
        unreported=part.unreported + other.unreported,
    )
