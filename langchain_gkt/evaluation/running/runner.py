"""Asks many questions at once, and writes every answer to disk at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, TypeAlias

from langchain_core.messages import AIMessageChunk

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.costs.prices import refuse_unlisted
from langchain_gkt.costs.usage import CHARS_PER_TOKEN
from langchain_gkt.errors import TeacherError
from langchain_gkt.evaluation.running.progress import ProgressBar
from langchain_gkt.evaluation.running.recorded import describe_recorded, recorded_teachers
from langchain_gkt.evaluation.running.records import Answer, AnswerKey, TeacherReply, part_of
from langchain_gkt.evaluation.running.replay import ReplayedReply, ReplayTeacher
from langchain_gkt.evaluation.running.reply_recorder import ReplyRecorder
from langchain_gkt.evaluation.running.run_settings import Billing, run_settings, shared_fronts
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.gates.learned import question_of
from langchain_gkt.prompts.base import TeacherPrompt
from langchain_gkt.prompts.hints import AsHint
from langchain_gkt.students.protocol import student_of

_MOST_FAILURES = 10
"""If this many questions fail before one succeeds, something is wrong with all of them."""

Job: TypeAlias = tuple[AnswerKey, Callable[[], Awaitable[Any]]]
"""A job, and the key of the answer that it makes."""


@dataclass(eq=False)
class EvaluationRunner:
    """Asks the questions of one run and keeps the answers.

    Attributes:
        chain: The chain to ask in each mode.
        task: The questions, and which answers are right.
        folder: Where to write answers.
        billing: How the calls are billed. The common beginning of all prompts is measured.
        concurrency: Maximum number of questions at the same time.
        answers: Finished answers by key, those of earlier sessions included. See `load`.
        replies: The teacher's replies by row and mode, those of earlier sessions included.
        spent: US dollars of the run so far, as far as known.
    """

    own_prompt: ClassVar[bool] = False
    """Whether the teacher alone gets the chain's teacher prompt, too. Else it reads everything."""

    chain: GuidedKnowledgeTransferChain
    task: Task
    folder: RunStore
    billing: Billing
    concurrency: int

    def __post_init__(self) -> None:
        """Name the rows, and take the task's limits if the chain has none of its own."""
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, not {self.concurrency}")
        self.prompts = [self.task.prompt(row) for row in self.task.rows]
        self.fronts = shared_fronts(self.chain, self.prompts)
        self.recorder()  # refuses invalid prices
        for name in ("teacher_price", "student_price"):
            refuse_unlisted(getattr(self.billing, name), name)
        scenario = self.billing.scenario
        refuse_unlisted(scenario and scenario.price, "scenario.price")
        self.keys = [self.task.row_key(i) for i in range(len(self.task.rows))]
        self._rows = dict(zip(self.keys, self.task.rows, strict=True))
        asked = [question_of(prompt) for prompt in self.prompts]
        self.questions = dict(zip(self.keys, asked, strict=True))
        chain = self.chain
        stop = chain.stop if chain.stop is not None else list(self.task.stop) or None
        limit, recorded = self.task.max_tokens, recorded_teachers(chain.teacher)
        # Recorded answers were paid for before the run. Their price is what they would cost.
        self._pays_teacher = not recorded
        if limit is not None and recorded:  # a whole answer that was paid for is not cut
            limit = max(limit, *(teacher.longest for teacher in recorded))
        # An answer from LangChain's cache would cost nothing and take no time.
        update = {"cache": False, "max_tokens": chain.max_tokens or limit, "stop": stop}
        self.chain = chain.model_copy(update=update)

    def load(self) -> None:
        """Take over the results of earlier sessions. The folder must be open for writing."""
        self.answers = {answer.key: answer for answer in self.folder.answers()}
        for answer in list(self.answers.values()):
            if (judged := self._judged(answer)) != answer:
                self._write(judged)
        self.replies = {
            (line["row"], line["mode"]): TeacherReply.from_dict(line["reply"])
            for line in self.folder.lines_of("reply")
        }
        parts = [answer.student for answer in self.answers.values()]
        if self._pays_teacher:
            parts += [reply.part for reply in self.replies.values()]
        self.spent = sum((part.cost or Decimal(0) for part in parts), Decimal(0))

    def reuse(self, other: RunStore, *, mode: str) -> None:
        """Take over the answers in a mode from a run of the same questions and models."""
        for line in other.lines_of("reply"):
            key = (line["row"], mode)
            if line["mode"] == mode and line["row"] in self._rows and key not in self.replies:
                self.replies[key] = TeacherReply.from_dict(line["reply"])
                self.folder.append(line)
        for answer in other.answers():
            if answer.mode == mode and answer.row in self._rows and answer.key not in self.answers:
                self._write(self._judged(answer))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in which all sessions of this run must agree. See `run_settings`."""
        return run_settings(self.chain, self.task, self.billing)

    @property
    def about(self) -> dict[str, Any]:
        """The manifest's facts about this session."""
        return {
            "concurrency": self.concurrency,
            "repeatable": student_of(self.chain.student).repeatable,
            "rows_from": dict(self.task.source),
            "prompts": {kind: front._asdict() for kind, front in self.fronts.items()},
            **describe_recorded(self.chain.teacher),
        }

    def _judged(self, answer: Answer) -> Answer:
        """Judge a stored answer again by the current metrics, for free."""
        if (row := self._rows.get(answer.row)) is None:
            return answer
        try:
            verdicts = self.task.judge(answer.text, row)
            leaked = self.task.leaked(answer.guidance, row)
        except Exception as error:
            raise ValueError(
                f"a metric of task {self.task.name!r} failed on row {answer.row}, which is "
                f"answered already: {type(error).__name__}: {error}"
            ) from error
        return replace(answer, verdicts=verdicts, leaked=leaked)

    def recorder(
        self, on_reply: Callable[[TeacherReply], None] = lambda reply: None, *, whole: bool = True
    ) -> ReplyRecorder:
        """Return a tracker for one answer. ``on_reply`` gets the teacher's reply as it ends.

        ``whole`` says whether the teacher reads the whole conversation.
        """
        billing = self.billing
        if billing.scenario is not None:
            front = self.fronts["whole" if whole else "shown"]
            prefix = round(front.shared / CHARS_PER_TOKEN)
            billing = replace(billing, scenario=billing.scenario.with_prefix(prefix))
        return ReplyRecorder(
            on_reply,
            teacher_price=billing.teacher_price,
            student_price=billing.student_price,
            tier=billing.tier,
            scenario=billing.scenario,
        )

    def keep(self, answer: Answer) -> None:
        """Write an answer down, and count what it cost."""
        self.spent += answer.student.cost or 0
        self._write(answer)

    def _write(self, answer: Answer) -> None:
        self.answers[answer.key] = answer
        self.folder.append({"type": "answer", "answer": answer.to_dict()})

    def fail(self, key: AnswerKey, error: Exception) -> None:
        """Write down a failure. A later session tries again."""
        line = {"type": "failure", **key._asdict(), "error": f"{type(error).__name__}: {error}"}
        self.folder.append(line)

    async def ask(self, index: int, mode: str) -> Answer:
        """Ask the question of a row, by its number, and write down the answer."""
        key = (self.keys[index], mode)
        chain = self.chain
        if known := self.replies.get(key):  # paid for in a session that ended before the answer
            teacher = ReplayTeacher(reply=ReplayedReply(known))
            chain = chain.model_copy(update={"teacher": teacher})

        def keep_reply(reply: TeacherReply) -> None:
            if known is not None:
                return
            if self._pays_teacher:
                self.spent += reply.part.cost or 0
            self.replies[key] = reply
            line = {"type": "reply", "row": key[0], "mode": mode, "reply": asdict(reply)}
            self.folder.append(line)

        answer = await self.answer(index, mode, chain, keep_reply)
        self.keep(answer)
        return answer

    async def answer(
        self,
        index: int,
        mode: str,
        chain: GuidedKnowledgeTransferChain,
        on_reply: Callable[[TeacherReply], None] = lambda reply: None,
        length: int | None = None,
    ) -> Answer:
        """Ask the question of a row, without writing the answer down.

        Args:
            index: The row's number.
            mode: The mode.
            chain: The runner's chain, or one whose teacher is recorded.
            on_reply: Called with the teacher's reply as soon as it ends.
            length: Maximum guidance tokens. None for the chain's.
        """
        alone = not strategy_of(mode).asks_student
        row = self.task.rows[index]
        recorder = self.recorder(on_reply, whole=alone and not self.own_prompt)
        settings: dict[str, Any] = {"mode": mode}
        if length is not None:
            settings["guidance_tokens"] = length
        length = length if length is not None else self._length(mode)
        if alone and self.own_prompt:
            prompt = chain.teacher_prompt
            if isinstance(prompt, TeacherPrompt):
                prompt = AsHint(prompt=prompt)
            settings["teacher_prompt"] = prompt
        config: Any = {"callbacks": [recorder]}
        message: AIMessageChunk | None = None
        first, started, begun = None, time.time(), time.perf_counter()
        try:
            async for chunk in chain.astream(self.prompts[index], config, **settings):
                if first is None and chunk.text:
                    first = time.perf_counter() - begun
                message = chunk if message is None else message + chunk
        except TeacherError as error:
            if recorder.reply is None or recorder.reply.text.strip():
                raise
            # Paid for, and no answer. Leaving it out would flatter the teacher.
            return self._empty_answer(index, mode, length, recorder.reply, error)
        seconds = time.perf_counter() - begun
        assert message is not None
        gkt, text = message.response_metadata["gkt"], str(message.text)
        recorded = isinstance(chain.teacher, ReplayTeacher) and bool(gkt["teacher_calls"])
        reply = self.replies.get((self.keys[index], mode))
        teacher = reply.part if recorded and reply else part_of(recorder.calls, "teacher")
        return Answer(
            row=self.keys[index],
            mode=mode,
            length=length,
            text=text,
            guidance=gkt["guidance"],
            verdicts=self.task.judge(text, row),
            leaked=self.task.leaked(gkt["guidance"], row),
            teacher=teacher,
            student=part_of(recorder.calls, "student"),
            # A recorded reply took its time in an earlier session.
            seconds=seconds + (teacher.seconds if recorded else 0.0),
            first_token_seconds=None if recorded else first,
            started=started,
            finish_reason=message.response_metadata.get("finish_reason"),
            finished_by=gkt["finished_by"],
            fallback=gkt["fallback"],
            signals=dict(gkt["signals"]),
            replayed=recorded,
        )

    def _empty_answer(
        self, index: int, mode: str, length: int | None, reply: TeacherReply, error: TeacherError
    ) -> Answer:
        known = self.replies.get((self.keys[index], mode))
        part = known.part if known else reply.part
        return Answer(
            row=self.keys[index],
            mode=mode,
            length=length,
            text="",
            verdicts=self.task.judge("", self.task.rows[index]),
            teacher=part,
            seconds=part.seconds,
            started=time.time(),
            finish_reason=reply.finish_reason,
            finished_by="teacher",
            fallback=f"TeacherError: {error}",
        )

    async def run(
        self, name: str, jobs: Sequence[Job], progress: ProgressBar, *, gives_up: bool = True
    ) -> None:
        """Run jobs side by side. A failure is written down, and the others continue.

        Raises:
            RuntimeError: If it ``gives_up``, because so many fail before one succeeds.
        """
        modes = {key.mode for key, _ in jobs}
        succeeded, failed = sum(key.mode in modes for key in self.answers), 0
        todo = iter(jobs)
        progress.begin(name, len(jobs))

        async def work() -> None:
            nonlocal succeeded, failed
            for key, job in todo:
                try:
                    await job()
                except Exception as error:
                    failed += 1
                    self.fail(key, error)
                    if gives_up and not succeeded and failed >= min(_MOST_FAILURES, len(jobs)):
                        raise RuntimeError(
                            f"the first {failed} question(s) of {name!r} all failed; the last "
                            f"with {type(error).__name__}: {error}"
                        ) from error
                else:
                    succeeded += 1
                progress.step(self.spent)

        workers = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(jobs)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def missing(self, mode: str) -> list[Job]:
        """Return a job for each row without an answer in a mode."""
        keys = [AnswerKey(row, mode, self._length(mode)) for row in self.keys]
        return [
            (key, partial(self.ask, index, mode))
            for index, key in enumerate(keys)
            if key not in self.answers
        ]

    def _length(self, mode: str) -> int | None:
        """Return the chain's guidance tokens, or None in a mode of one model alone."""
        return self.chain.guidance_tokens if len(strategy_of(mode).roles) > 1 else None
