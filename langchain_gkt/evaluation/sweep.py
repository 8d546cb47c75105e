"""sweep(): accuracy and cost over the guidance length, for the price of one teacher-only run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from langchain_gkt._langchain_compat import RunnableBindingBase
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.evaluation.results.sweep_result import PROBED, Sweep
from langchain_gkt.evaluation.running.progress import Bar
from langchain_gkt.evaluation.running.records import Answer, Part
from langchain_gkt.evaluation.running.replay import RecordedTeacher, Script, Tokenizer, pieces_by
from langchain_gkt.evaluation.running.run_store import RunFolder
from langchain_gkt.evaluation.running.runner import Desk, Job, settings_of
from langchain_gkt.evaluation.running.waiting import waited_for
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.guidance import GuidancePolicy, SupportsConfidence
from langchain_gkt.teachers.wrappers import models_of, resolve

_POINTS = 12
_TRIES = 3


async def asweep(
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    *,
    lengths: Sequence[int] | int | None = None,
    teacher_price: Prices = None,
    student_price: Prices | MachineTime = None,
    teacher_tokenizer: Any = None,
    check_lengths: Sequence[int] = (),
    check_rows: int = 20,
    out: str | Path | None = None,
    concurrency: int = 8,
    progress: bool | None = None,
) -> Sweep:
    """Answer the same questions with guidance of many lengths, from one answer of the teacher.

    The teacher answers each question once, whole. Every shorter guidance is cut from that
    answer at the boundaries of the teacher's own tokens, so a sweep costs one teacher-only run,
    and the student's time. The tokens are those the provider tells (``logprobs``), else those of
    the teacher's tokenizer, else approximate, which the result says. Cutting and asking again
    give the same only where the teacher repeats itself: at temperature 0.

    A sweep that was ended, however suddenly, is gone on with by the same call.

    Args:
        chain: The guided pair; its ``guidance`` policy says where guidance is cut.
            ``max_tokens`` and ``stop`` are the task's where it has none.
        task: The questions; see `load_task` and `Task`.
        lengths: Guidance lengths in the teacher's tokens; a number for every length from 0 up
            to it; None for a dozen up to the chain's ``guidance_tokens``. 0 is always among them.
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        teacher_tokenizer: The teacher's Hugging Face tokenizer, or a function from a text to its
            tokens' texts; None where the teacher tells its tokens or is a local model.
        check_lengths: Lengths at which the teacher is really asked again, to see whether the
            guidance is the one that was cut. This is paid for.
        check_rows: How many questions that is done for.
        out: The run's folder; None to keep nothing.
        concurrency: Most questions at the same time.
        progress: Whether to show a progress bar; None for where standard error is a terminal.

    Returns:
        The sweep; its `Sweep.choose` names the cheapest length that is good enough.

    Raises:
        ValueError: If an argument makes no sense, or ``out`` holds a run of other settings.
        RuntimeError: If every question fails, or another process writes to ``out``.
    """
    chosen = _lengths(lengths, chain.guidance_tokens)
    if bad := [length for length in check_lengths if length < 1]:
        raise ValueError(f"check_lengths must be 1 or more, not {bad[0]}")
    if chain.guidance is not None and chain.guidance.ask != "always":
        # Whether to ask is what the sweep finds out.
        chain = chain.model_copy(update={"guidance": replace(chain.guidance, ask="always")})
    folder = RunFolder(out)
    # Whole replies tell their tokens more reliably than streamed ones.
    chain = chain.model_copy(update={"disable_streaming": True})
    desk = Desk(chain, task, folder, teacher_price, student_price, concurrency)
    settings = settings_of(desk)
    settings["chain"].pop("guidance_tokens")  # each length is one
    tokenizer = _tokenizer(teacher_tokenizer, chain.teacher)
    with folder.writing("sweep", settings, desk.questions, desk.about), Bar(progress) as bar:
        desk.load()
        # Rows that are new to the run are to have the lengths that the others have.
        known = {length for _, mode, length in desk.answers if mode == "guided" and length}
        sweeper = _Sweeper(desk, sorted(known.union(chosen)), tokenizer)
        await desk.run("teacher", await sweeper.teacher_jobs(), bar)
        await desk.run("student", desk.missing("student", ask=sweeper.alone), bar)
        await desk.run("guided", sweeper.guided_jobs(), bar)
        jobs = sweeper.check_jobs(check_lengths, check_rows)
        if jobs:
            await desk.run("check", jobs, bar, gives_up=False)
    return Sweep.of(folder)


def _lengths(given: Sequence[int] | int | None, most: int) -> list[int]:
    if given is None:
        points = min(_POINTS, most)
        given = [round(most * i / max(1, points)) for i in range(points + 1)]
    elif isinstance(given, int):
        given = range(given + 1)
    bad = [n for n in given if not isinstance(n, int) or isinstance(n, bool) or n < 0]
    if bad or not given:
        raise ValueError(f"lengths must be whole numbers, 0 or more, not {bad or given!r}")
    return sorted({0, *given})


def _tokenizer(given: Any, teacher: Any) -> Tokenizer | None:
    if given is None:
        from langchain_gkt.students.huggingface import HuggingFaceStudent  # imports torch

        # A local teacher brings its own.
        first, *others = models_of(resolve(teacher, None))
        if isinstance(first, HuggingFaceStudent) and not others:
            given = first._load()[1].tokenizer
    if given is None:
        return None
    if hasattr(given, "decode") and callable(given):
        return pieces_by(given)
    if callable(given):
        return lambda text: list(given(text))
    raise TypeError(
        "teacher_tokenizer must be a Hugging Face tokenizer or a function from a text to its "
        f"tokens' texts, not {type(given).__name__}"
    )


class _Sweeper:
    """The jobs of one sweep."""

    def __init__(self, desk: Desk, lengths: Sequence[int], tokenizer: Tokenizer | None) -> None:
        self._desk, self._lengths, self._tokenizer = desk, lengths, tokenizer

    async def teacher_jobs(self) -> list[Job]:
        """Have the teacher answer whole; it is asked for its tokens if it takes that."""
        desk = self._desk
        jobs = desk.missing("teacher")
        telling = _with_logprobs(desk.chain.teacher)
        if telling is None or not jobs:
            return jobs
        plain = desk.chain
        asking = desk.chain.model_copy(update={"teacher": telling})
        for at, (_, job) in enumerate(jobs[:_TRIES]):
            for desk.chain in (asking, plain):
                # What fails both ways is about something else, and shows when it is tried again.
                with suppress(Exception):
                    await job()
                    return jobs[:at] + jobs[at + 1 :]
        desk.chain = asking
        return jobs

    async def alone(self, index: int, mode: str) -> Answer:
        """Have the student answer alone, and say how likely its first tokens are."""
        desk, student = self._desk, self._desk.chain.student
        answer = await desk.answer(index, mode, desk.chain, lambda reply: None)
        if isinstance(student, SupportsConfidence):
            probabilities = await student.aprobe(desk.prompts[index], tokens=PROBED)
            answer = replace(answer, probabilities=probabilities)
        desk.keep(answer)
        return answer

    def guided_jobs(self) -> list[Job]:
        """Return a job for each row: its lengths one after the other, shortest first."""
        desk, found = self._desk, list[Job]()
        for index, row in enumerate(desk.keys):
            todo = [n for n in self._lengths if n and (row, "guided", n) not in desk.answers]
            if todo and (row, "teacher") in desk.replies and (row, "student", None) in desk.answers:
                found.append(((row, "guided", todo[0]), self._guided(index, todo)))
        return found

    def _guided(self, index: int, lengths: Sequence[int]) -> Any:
        desk, row = self._desk, self._desk.keys[index]

        async def work() -> None:
            reply = desk.replies[row, "teacher"]
            script = Script(reply, self._tokenizer)
            teacher = RecordedTeacher(script=script)
            chain = desk.chain.model_copy(update={"teacher": teacher})
            alone = desk.answers[row, "student", None]
            before = replace(alone, mode="guided", probabilities=None, replayed=True)
            desk.folder.append({"type": "cut", "row": row, "method": script.method})
            for length in lengths:
                answer = self._same(before, script, length)
                try:
                    if answer is None:
                        answer = await desk.answer(
                            index, "guided", chain, lambda reply: None, length=length
                        )
                except Exception as error:  # noqa: BLE001  a length must not lose the others
                    desk.fail((row, "guided", length), error)
                    continue
                part = _up_to(reply.part, script, length)
                before = replace(
                    answer,
                    length=length,
                    teacher=part,
                    seconds=answer.student.seconds + part.seconds,
                    first_token_seconds=None,
                )
                desk.keep(before)

        return work

    def _same(self, before: Answer, script: Script, length: int) -> Answer | None:
        """Return the last length's answer where this one's guidance is the same text.

        Only greedy answers repeat, and only those that ended before their limit are not bound
        to the number of tokens that guidance left them.
        """
        chain = self._desk.chain
        heat = chain.temperature
        if heat is None:
            heat = getattr(chain.student, "temperature", None)
        text, _, whole = script.cut(length)
        # A length that gave no guidance says nothing of the next one.
        if before.fallback is not None or not text.strip():
            return None
        if heat != 0 or before.finish_reason == "length":
            return None
        if whole:
            return before if before.finished_by == "teacher" else None
        policy = chain.guidance or GuidancePolicy()
        if before.finished_by == "teacher" or policy.trim(text) != before.guidance:
            return None
        left = None if chain.max_tokens is None else chain.max_tokens - length
        if left is not None and before.student.completion_tokens >= left:
            return None
        return before

    def check_jobs(self, lengths: Sequence[int], rows: int) -> list[Job]:
        """Return a job for each guidance that is really asked for again."""
        desk, found = self._desk, list[Job]()
        done = {(one["row"], one["length"]) for one in desk.folder.lines if one["type"] == "check"}
        for index, row in enumerate(desk.keys[:rows]):
            if (row, "teacher") not in desk.replies:
                continue
            for length in lengths:
                if (row, length) not in done:
                    found.append(((row, "check", length), self._check(index, length)))
        return found

    def _check(self, index: int, length: int) -> Any:
        desk, row = self._desk, self._desk.keys[index]

        async def work() -> None:
            tracker, script = desk.tape(), Script(desk.replies[row, "teacher"], self._tokenizer)
            chain = desk.chain.model_copy(update={"guidance_tokens": length})
            asked = await chain.aguide(desk.prompts[index], {"callbacks": [tracker]})
            recorded = chain.model_copy(update={"teacher": RecordedTeacher(script=script)})
            cut = await recorded.aguide(desk.prompts[index])
            report = tracker.report()
            line = {"type": "check", "row": row, "length": length, "method": script.method}
            same = (asked.text, asked.complete) == (cut.text, cut.complete)
            desk.folder.append({**line, "same": same, "cost": str(report.teacher.known_cost)})
            desk.spent += report.teacher.known_cost

        return work


def _up_to(part: Part, script: Script, length: int) -> Part:
    """Return what the teacher's part comes to where it stops at a length.

    Prices are per token, so money follows the tokens; time is an estimate that does too.
    """
    tokens = min(length, script.tokens)
    share = Decimal(tokens) / Decimal(max(1, script.tokens))
    cost = part.completion_cost
    return replace(
        part,
        completion_tokens=tokens,
        completion_cost=None if cost is None else str(Decimal(cost) * share),
        seconds=part.seconds * float(share),
        first_token_seconds=None,
    )


def _with_logprobs(teacher: Any) -> Any:
    """Return a teacher that is asked to tell its tokens, or None where none can be."""
    if isinstance(teacher, RunnableBindingBase):  # bind, with_config, with_retry
        inner = _with_logprobs(teacher.bound)
        return None if inner is None else teacher.model_copy(update={"bound": inner})
    fields = getattr(type(teacher), "model_fields", {})
    if "logprobs" not in fields or getattr(teacher, "logprobs", None) is not None:
        return None
    return teacher.model_copy(update={"logprobs": True})


sweep = waited_for(asweep, "sweep")
