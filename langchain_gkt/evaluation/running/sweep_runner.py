"""Runs a sweep: every guidance length from one recorded reply of the teacher."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from langchain_gkt._langchain_compat import RunnableBindingBase
from langchain_gkt.chain.callbacks.handlers import child_config
from langchain_gkt.chain.steps.student_step import CalledStudent
from langchain_gkt.evaluation.running.records import SWEPT, Answer, AnswerKey, part_of
from langchain_gkt.evaluation.running.replay import ReplayedReply, ReplayTeacher
from langchain_gkt.evaluation.running.runner import EvaluationRunner, Job
from langchain_gkt.gates import Gate
from langchain_gkt.gates.base import Signals
from langchain_gkt.gates.first_tokens import first_token_signals
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.students.protocol import student_of
from langchain_gkt.teachers.token_cuts import TokenSplitter

PROBED = 32
"""The number of its own first tokens that a sweep measures of the student."""
_TRIES = 3


@dataclass(eq=False)
class SweepRunner(EvaluationRunner):
    """Asks for the teacher's whole answers, the student's, and every length.

    Attributes:
        gates: Gates to measure for each question, besides the student's first tokens.
        splitter: Finds the tokens of replies that do not hold them.
        lengths: Guidance lengths.
    """

    own_prompt: ClassVar[bool] = True

    gates: Sequence[Gate] = ()
    splitter: TokenSplitter | None = None
    lengths: Sequence[int] = ()

    async def teacher_jobs(self) -> list[Job]:
        """Return a job for each whole answer of the teacher.

        The job requests its tokens (``logprobs``) if the teacher supports that. This method answers
        the first questions to find out.
        """
        jobs = self.missing("teacher")
        teacher = _with_logprobs(self.chain.teacher)
        if teacher is None or not jobs:
            return jobs
        without = self.chain
        with_logprobs = self.chain.model_copy(update={"teacher": teacher})
        for at, (_, job) in enumerate(jobs[:_TRIES]):
            for chain in (with_logprobs, without):
                self.chain = chain
                # A failure with both has another cause, and shows when it is tried again.
                with suppress(Exception):
                    await job()
                    return jobs[:at] + jobs[at + 1 :]
        self.chain = with_logprobs
        return jobs

    async def ask(self, index: int, mode: str) -> Answer:
        """Ask a question. Measure its signals too where the student answers alone."""
        if mode != "student":
            return await super().ask(index, mode)
        answer = await self.answer(index, mode, self.chain)
        student = student_of(self.chain.student)
        if student.first_token_detail != "none":
            tokens = await student.afirst_tokens(self.prompts[index], tokens=PROBED)
            answer.signals.update(first_token_signals(tokens))
        for gate in self.gates:
            await self._measure(gate, index, answer)
        self.keep(answer)
        return answer

    async def _measure(self, gate: Gate, index: int, alone: Answer) -> None:
        """Measure a gate's signals as a chain would, and keep the answer that it would show.

        The student's part of that answer is all that measuring took.
        """
        chain, recorder = self.chain, self.recorder()
        metadata = {"gkt_call_id": str(uuid.uuid4()), "gkt_mode": "student", "gkt_compared": False}
        config = child_config(None, "student", own_callbacks=[recorder], metadata=metadata)
        limits = {"max_tokens": chain.max_tokens, "stop": chain.stop}
        limits = {name: value for name, value in limits.items() if value is not None}
        student = CalledStudent(student_of(chain.student), config, limits)
        started, begun = time.time(), time.perf_counter()
        signals = await gate.ameasure(student, self.prompts[index])
        alone.signals.update(signals)
        if gate.shown_as is None:
            return
        winner = signals.winner if isinstance(signals, Signals) else None
        text = alone.text if winner is None else str(winner.text)
        self.keep(
            replace(
                alone,
                mode=gate.shown_as,
                text=text,
                verdicts=self.task.judge(text, self.task.rows[index]),
                student=part_of(recorder.calls, "student"),
                seconds=time.perf_counter() - begun,
                first_token_seconds=None,
                started=started,
                finish_reason=(winner.response_metadata if winner else {}).get("finish_reason"),
                fallback=None if winner else "no sample could be read",
                signals=dict(signals),
            )
        )

    def guided_jobs(self) -> list[Job]:
        """Return a job for each row. It makes the missing lengths in order, shortest first."""
        jobs = list[Job]()
        for index, row in enumerate(self.keys):
            keys = [AnswerKey(row, SWEPT, length) for length in self.lengths if length]
            missing = [key for key in keys if key not in self.answers]
            answered = AnswerKey(row, "student") in self.answers
            if missing and (row, "teacher") in self.replies and answered:
                jobs.append((missing[0], partial(self._guide, index, missing)))
        return jobs

    async def _guide(self, index: int, keys: Sequence[AnswerKey]) -> None:
        row = self.keys[index]
        reply = ReplayedReply(self.replies[row, "teacher"], self.splitter)
        chain = self.chain.model_copy(update={"teacher": ReplayTeacher(reply=reply)})
        alone = self.answers[AnswerKey(row, "student")]
        last = replace(alone, mode=SWEPT, signals={}, replayed=True)
        self.folder.append({"type": "cut", "row": row, "method": reply.method})
        for key in keys:
            length = key.length or 0
            answer = self._unchanged(last, reply, length)
            try:
                if answer is None:
                    answer = await self.answer(index, SWEPT, chain, length=length)
            except Exception as error:  # noqa: BLE001  a length must not lose the others
                self.fail(key, error)
                continue
            part = reply.recorded.part.up_to(min(length, reply.tokens), reply.tokens)
            last = replace(
                answer,
                length=length,
                teacher=part,
                seconds=answer.student.seconds + part.seconds,
                first_token_seconds=None,
            )
            self.keep(last)

    def _unchanged(self, last: Answer, reply: ReplayedReply, length: int) -> Answer | None:
        """Return the last length's answer if this length's guidance is the same text.

        This holds only for greedy answers that ended before their limit. The others depend on how
        many tokens the guidance left to the student.
        """
        chain = self.chain
        temperature = chain.temperature
        if temperature is None:
            temperature = getattr(chain.student, "temperature", None)
        text, _, complete = reply.cut(length)
        # A length without guidance says nothing about the next one.
        if last.fallback is not None or not text.strip():
            return None
        if temperature != 0 or last.finish_reason == "length":
            return None
        if complete:
            return last if last.finished_by == "teacher" else None
        policy = chain.guidance or GuidancePolicy()
        if policy.min_tokens:  # the same text may have another token count
            return None
        if last.finished_by == "teacher" or policy.trim(text) != last.guidance:
            return None
        left = None if chain.max_tokens is None else chain.max_tokens - length
        if left is not None and last.student.completion_tokens >= left:
            return None
        return last

    def check_jobs(self, lengths: Sequence[int], rows: int) -> list[Job]:
        """Return a job for each guidance that the teacher is asked for again."""
        done = {(line["row"], line["length"]) for line in self.folder.lines_of("check")}
        return [
            (AnswerKey(row, "check", length), partial(self._check, index, length))
            for index, row in enumerate(self.keys[:rows])
            if (row, "teacher") in self.replies
            for length in lengths
            if (row, length) not in done
        ]

    async def _check(self, index: int, length: int) -> None:
        row = self.keys[index]
        recorder = self.recorder()
        reply = ReplayedReply(self.replies[row, "teacher"], self.splitter)
        chain = self.chain.model_copy(update={"guidance_tokens": length})
        asked = await chain.aguide(self.prompts[index], {"callbacks": [recorder]})
        recorded = chain.model_copy(update={"teacher": ReplayTeacher(reply=reply)})
        cut = await recorded.aguide(self.prompts[index])
        cost = recorder.report().teacher.known_cost
        line = {"type": "check", "row": row, "length": length, "method": reply.method}
        same = (asked.text, asked.complete) == (cut.text, cut.complete)
        self.folder.append({**line, "same": same, "cost": str(cost)})
        self.spent += cost


def _with_logprobs(teacher: Any) -> Any:
    """Return the teacher with logprobs on, or None if it cannot have them or has set them."""
    if isinstance(teacher, RunnableBindingBase):  # bind, with_config, with_retry
        inner = _with_logprobs(teacher.bound)
        return None if inner is None else teacher.model_copy(update={"bound": inner})
    fields = getattr(type(teacher), "model_fields", {})
    if "logprobs" not in fields or getattr(teacher, "logprobs", None) is not None:
        return None
    return teacher.model_copy(update={"logprobs": True})
