"""The jobs of a sweep: every guidance length from one recorded reply of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_gkt._langchain_compat import RunnableBindingBase
from langchain_gkt.evaluation.running.measured_gates import measure
from langchain_gkt.evaluation.running.records import SWEPT, Answer, AnswerKey
from langchain_gkt.evaluation.running.replay import ReplayedReply, ReplayTeacher
from langchain_gkt.evaluation.running.runner import EvaluationRunner, Job
from langchain_gkt.gates import Gate
from langchain_gkt.gates.first_tokens import first_token_signals
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.students.protocol import student_of
from langchain_gkt.teachers.token_cuts import TokenSplitter

PROBED = 32
"""The number of its own first tokens that a sweep measures of the student."""
_TRIES = 3


class SweepJobs:
    """The jobs of a sweep: the teacher's whole answers, the student's, and every length."""

    def __init__(
        self,
        runner: EvaluationRunner,
        lengths: Sequence[int],
        splitter: TokenSplitter | None,
        gates: Sequence[Gate] = (),
    ) -> None:
        """Set it up. The splitter finds the tokens of replies that do not hold them."""
        self._runner, self._lengths, self._splitter = runner, lengths, splitter
        self._gates = gates

    async def teacher_jobs(self) -> list[Job]:
        """Return a job for each whole answer of the teacher.

        The job requests its tokens (``logprobs``) if the teacher supports that. This method answers
        the first questions to find out.
        """
        runner = self._runner
        jobs = runner.missing("teacher")
        teacher = _with_logprobs(runner.chain.teacher)
        if teacher is None or not jobs:
            return jobs
        without = runner.chain
        with_logprobs = runner.chain.model_copy(update={"teacher": teacher})
        for at, (_, job) in enumerate(jobs[:_TRIES]):
            for chain in (with_logprobs, without):
                runner.chain = chain
                # A failure with both has another cause, and shows when it is tried again.
                with suppress(Exception):
                    await job()
                    return jobs[:at] + jobs[at + 1 :]
        runner.chain = with_logprobs
        return jobs

    async def ask_student(self, index: int, mode: str) -> Answer:
        """Have the student answer alone, and measure the signals of the question."""
        runner = self._runner
        answer = await runner.answer(index, mode, runner.chain)
        prompt, student = runner.prompts[index], student_of(runner.chain.student)
        judge = partial(runner.task.judge, row=runner.task.rows[index])
        if student.first_token_detail != "none":
            tokens = await student.afirst_tokens(prompt, tokens=PROBED)
            answer.signals.update(first_token_signals(tokens))
        for gate in self._gates:
            signals, shown = await measure(
                gate, runner.chain, prompt, recorder=runner.recorder(), alone=answer, judge=judge
            )
            answer.signals.update(signals)
            if shown is not None:
                runner.keep(shown)
        runner.keep(answer)
        return answer

    def guided_jobs(self) -> list[Job]:
        """Return a job for each row. It makes the missing lengths in order, shortest first."""
        runner, jobs = self._runner, list[Job]()
        for index, row in enumerate(runner.keys):
            keys = [AnswerKey(row, SWEPT, length) for length in self._lengths if length]
            missing = [key for key in keys if key not in runner.answers]
            answered = AnswerKey(row, "student") in runner.answers
            if missing and (row, "teacher") in runner.replies and answered:
                jobs.append((missing[0], partial(self._guide, index, missing)))
        return jobs

    async def _guide(self, index: int, keys: Sequence[AnswerKey]) -> None:
        runner, row = self._runner, self._runner.keys[index]
        reply = ReplayedReply(runner.replies[row, "teacher"], self._splitter)
        chain = runner.chain.model_copy(update={"teacher": ReplayTeacher(reply=reply)})
        alone = runner.answers[AnswerKey(row, "student")]
        last = replace(alone, mode=SWEPT, signals={}, replayed=True)
        runner.folder.append({"type": "cut", "row": row, "method": reply.method})
        for key in keys:
            length = key.length or 0
            answer = self._unchanged(last, reply, length)
            try:
                if answer is None:
                    answer = await runner.answer(index, SWEPT, chain, length=length)
            except Exception as error:  # noqa: BLE001  a length must not lose the others
                runner.fail(key, error)
                continue
            part = reply.recorded.part.up_to(min(length, reply.tokens), reply.tokens)
            last = replace(
                answer,
                length=length,
                teacher=part,
                seconds=answer.student.seconds + part.seconds,
                first_token_seconds=None,
            )
            runner.keep(last)

    def _unchanged(self, last: Answer, reply: ReplayedReply, length: int) -> Answer | None:
        """Return the last length's answer if this length's guidance is the same text.

        This holds only for greedy answers that ended before their limit. The others depend on how
        many tokens the guidance left to the student.
        """
        chain = self._runner.chain
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
        runner = self._runner
        checks = [line for line in runner.folder.lines if line["type"] == "check"]
        done = {(line["row"], line["length"]) for line in checks}
        return [
            (AnswerKey(row, "check", length), partial(self._check, index, length))
            for index, row in enumerate(runner.keys[:rows])
            if (row, "teacher") in runner.replies
            for length in lengths
            if (row, length) not in done
        ]

    async def _check(self, index: int, length: int) -> None:
        runner, row = self._runner, self._runner.keys[index]
        recorder = runner.recorder()
        reply = ReplayedReply(runner.replies[row, "teacher"], self._splitter)
        chain = runner.chain.model_copy(update={"guidance_tokens": length})
        asked = await chain.aguide(runner.prompts[index], {"callbacks": [recorder]})
        recorded = chain.model_copy(update={"teacher": ReplayTeacher(reply=reply)})
        cut = await recorded.aguide(runner.prompts[index])
        cost = recorder.report().teacher.known_cost
        line = {"type": "check", "row": row, "length": length, "method": reply.method}
        same = (asked.text, asked.complete) == (cut.text, cut.complete)
        runner.folder.append({**line, "same": same, "cost": str(cost)})
        runner.spent += cost


def _with_logprobs(teacher: Any) -> Any:
    """Return the teacher with logprobs on, or None if it cannot have them or has set them."""
    if isinstance(teacher, RunnableBindingBase):  # bind, with_config, with_retry
        inner = _with_logprobs(teacher.bound)
        return None if inner is None else teacher.model_copy(update={"bound": inner})
    fields = getattr(type(teacher), "model_fields", {})
    if "logprobs" not in fields or getattr(teacher, "logprobs", None) is not None:
        return None
    return teacher.model_copy(update={"logprobs": True})
