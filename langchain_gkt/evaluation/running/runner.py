"""Asks many questions at once, and writes every answer down as soon as it is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import LLMResult

from langchain_gkt._langchain_compat import (
    RunnableBindingBase,
    identifying_params,
    tracing_params,
)
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs import CostTracker, MachineTime
from langchain_gkt.costs.prices import Prices, refuse_unlisted
from langchain_gkt.costs.usage import message_of
from langchain_gkt.errors import TeacherError
from langchain_gkt.evaluation.running.progress import Bar
from langchain_gkt.evaluation.running.records import Answer, Reply, part_of
from langchain_gkt.evaluation.running.replay import RecordedTeacher, Script, logprob_pieces
from langchain_gkt.evaluation.running.run_store import RunFolder
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.teachers.replies import finish_reason
from langchain_gkt.teachers.wrappers import models_of, resolve

_HOPELESS = 10
"""So many questions may fail before one succeeds; then something is wrong with all of them."""

Key = tuple[str, str, int | None]
"""Names an answer: its row, mode and length."""
Job = tuple[Key, Callable[[], Awaitable[Any]]]
"""Something to do, and the key of what it finishes."""


class _Tape(CostTracker):
    """Hands over the teacher's reply the moment it is there: from then on it is paid for."""

    def __init__(self, keep: Callable[[Reply], None], **prices: Any) -> None:
        super().__init__(keep_calls=True, **prices)
        self._hand_over = keep
        self._teachers: set[UUID] = set()
        self.heard: Reply | None = None

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: Any = None, **kwargs: Any
    ) -> None:
        if (metadata or {}).get("gkt_role") == "teacher":
            self._teachers.add(run_id)
        super().on_chat_model_start(
            serialized, messages, run_id=run_id, metadata=metadata, **kwargs
        )

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        super().on_llm_end(response, run_id=run_id, **kwargs)  # its cost is counted first
        message = message_of(response)
        if run_id not in self._teachers or message is None:
            return
        usage: Any = message.usage_metadata
        self.heard = Reply(
            text=str(message.text),
            usage=usage,
            finish_reason=finish_reason(message),
            pieces=logprob_pieces(message),
            part=part_of(self.calls, "teacher"),
        )
        self._hand_over(self.heard)


@dataclass(eq=False)
class Desk:
    """What one run asks with, and where its answers go.

    Attributes:
        chain: Asked in each mode.
        task: The questions and what is right.
        folder: Keeps what comes back.
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        concurrency: Most questions at the same time.
    """

    chain: GuidedKnowledgeTransferChain
    task: Task
    folder: RunFolder
    teacher_price: Prices
    student_price: Prices | MachineTime
    concurrency: int

    def __post_init__(self) -> None:
        """Number the rows, and take the task's limits where the chain has none of its own."""
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, not {self.concurrency}")
        self.tape()  # refuses prices that are none
        for name in ("teacher_price", "student_price"):
            refuse_unlisted(getattr(self, name), name)
        rows = range(len(self.task.rows))
        self.keys = [self.task.row_key(i) for i in rows]
        self.prompts = [self.task.prompt(row) for row in self.task.rows]
        asked = [str(prompt[-1].text) for prompt in self.prompts]
        self.questions = dict(zip(self.keys, asked, strict=True))
        own = self.chain
        stop = own.stop if own.stop is not None else list(self.task.stop) or None
        # An answer from LangChain's cache would cost nothing and take no time.
        self.chain = own.model_copy(
            update={
                "cache": False,
                "max_tokens": own.max_tokens or self.task.max_tokens,
                "stop": stop,
            }
        )

    def load(self) -> None:
        """Take over what earlier sittings have finished; the folder is open."""
        lines = self.folder.lines
        found = [Answer.from_dict(one["answer"]) for one in lines if one["type"] == "answer"]
        self.answers: dict[Key, Answer] = {a.key: a for a in found}
        self._judge_again()
        self.replies = {
            (one["row"], one["mode"]): Reply.from_dict(one["reply"])
            for one in lines
            if one["type"] == "reply"
        }
        parts = [reply.part for reply in self.replies.values()] + [a.student for a in found]
        self.spent = sum((part.cost or Decimal(0) for part in parts), Decimal(0))

    @property
    def about(self) -> dict[str, Any]:
        """What a manifest says of this sitting."""
        return {"concurrency": self.concurrency, "rows_from": dict(self.task.source)}

    def _judge_again(self) -> None:
        """Judge what is written down by the task's metrics of today; this costs nothing."""
        rows = dict(zip(self.keys, self.task.rows, strict=True))
        for answer in list(self.answers.values()):
            if (row := rows.get(answer.row)) is None:
                continue
            try:
                verdicts = self.task.judge(answer.text, row)
                leaked = bool(answer.guidance) and self.task.leaked(answer.guidance, row)
            except Exception as error:
                raise ValueError(
                    f"a metric of task {self.task.name!r} failed on row {answer.row}, which is "
                    f"answered already: {type(error).__name__}: {error}"
                ) from error
            if (verdicts, leaked) != (answer.verdicts, answer.leaked):
                judged = replace(answer, verdicts=verdicts, leaked=leaked)
                self.answers[judged.key] = judged
                self.folder.append({"type": "answer", "answer": judged.to_dict()})

    def tape(self, keep: Callable[[Reply], None] = lambda reply: None) -> _Tape:
        """Return a tracker for one answer.

        Args:
            keep: Is given the teacher's reply when it is there.
        """
        return _Tape(keep, teacher_price=self.teacher_price, student_price=self.student_price)

    def keep(self, answer: Answer) -> None:
        """Write an answer down."""
        self.answers[answer.key] = answer
        self.spent += answer.student.cost or 0
        self.folder.append({"type": "answer", "answer": answer.to_dict()})

    def fail(self, key: Key, error: Exception) -> None:
        """Note what failed; a later sitting tries it again."""
        row, mode, length = key
        line = {"type": "failure", "row": row, "mode": mode, "length": length}
        self.folder.append({**line, "error": f"{type(error).__name__}: {error}"})

    async def ask(self, index: int, mode: str) -> Answer:
        """Ask one question in one mode, and write down what comes back.

        Args:
            index: The row's number.
            mode: ``teacher``, ``student`` or ``guided``.

        Returns:
            The answer.
        """
        key = (self.keys[index], mode)
        chain = self.chain
        if known := self.replies.get(key):  # paid for in a sitting that ended too early
            chain = chain.model_copy(update={"teacher": RecordedTeacher(script=Script(known))})

        def keep(reply: Reply) -> None:
            if known is not None:
                return
            self.spent += reply.part.cost or 0
            self.replies[key] = reply
            line = {"type": "reply", "row": key[0], "mode": mode, "reply": asdict(reply)}
            self.folder.append(line)

        answer = await self.answer(index, mode, chain, keep)
        self.keep(answer)
        return answer

    async def answer(
        self,
        index: int,
        mode: str,
        chain: GuidedKnowledgeTransferChain,
        keep: Callable[[Reply], None],
        length: int | None = None,
    ) -> Answer:
        """Ask one question, without writing anything down.

        Args:
            index: The row's number.
            mode: The mode.
            chain: What to ask: the desk's chain, or one whose teacher is recorded.
            keep: Is given the teacher's reply when it is there.
            length: Most guidance tokens, where they are not the chain's.

        Returns:
            The answer.
        """
        row, tape = self.task.rows[index], self.tape(keep)
        settings: dict[str, Any] = {"mode": mode}
        if length is not None:
            settings["guidance_tokens"] = length
        elif mode == "guided":
            length = chain.guidance_tokens
        config: Any = {"callbacks": [tape]}
        whole: AIMessageChunk | None = None
        first, started, begun = None, time.time(), time.perf_counter()
        try:
            async for chunk in chain.astream(self.prompts[index], config, **settings):
                if first is None and chunk.text:
                    first = time.perf_counter() - begun
                whole = chunk if whole is None else whole + chunk
        except TeacherError as error:
            if tape.heard is None or tape.heard.text.strip():
                raise
            # Paid for, and no answer: to leave it out would flatter the teacher.
            return self._silent(index, mode, length, tape.heard, error)
        seconds = time.perf_counter() - begun
        assert whole is not None
        gkt, text = whole.response_metadata["gkt"], str(whole.text)
        recorded = isinstance(chain.teacher, RecordedTeacher) and bool(gkt["teacher_calls"])
        reply = self.replies.get((self.keys[index], mode))
        teacher = reply.part if recorded and reply else part_of(tape.calls, "teacher")
        return Answer(
            row=self.keys[index],
            mode=mode,
            length=length,
            text=text,
            guidance=gkt["guidance"],
            verdicts=self.task.judge(text, row),
            leaked=bool(gkt["guidance"]) and self.task.leaked(gkt["guidance"], row),
            teacher=teacher,
            student=part_of(tape.calls, "student"),
            # A reply that was there already took its time in another sitting.
            seconds=seconds + (teacher.seconds if recorded else 0.0),
            first_token_seconds=None if recorded else first,
            started=started,
            finish_reason=whole.response_metadata.get("finish_reason"),
            finished_by=gkt["finished_by"],
            fallback=gkt["fallback"],
            confidence=gkt["confidence"],
            replayed=recorded,
        )

    def _silent(
        self, index: int, mode: str, length: int | None, reply: Reply, error: TeacherError
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
        self,
        name: str,
        jobs: Sequence[Job],
        bar: Bar,
        *,
        gives_up: bool = True,
    ) -> None:
        """Do jobs side by side; one that fails is noted, and the others go on.

        Args:
            name: What they are, for the progress bar.
            jobs: Each with the key of what it finishes.
            bar: The progress bar.
            gives_up: Whether to end where none succeeds.

        Raises:
            RuntimeError: If so many fail before one succeeds that something must be wrong.
        """
        modes = {mode for (_, mode, _), _ in jobs}
        succeeded, failed = sum(mode in modes for _, mode, _ in self.answers), 0
        todo = iter(jobs)
        bar.begin(name, len(jobs))

        async def work() -> None:
            nonlocal succeeded, failed
            for key, job in todo:
                try:
                    await job()
                except Exception as error:
                    failed += 1
                    self.fail(key, error)
                    if gives_up and not succeeded and failed >= min(_HOPELESS, len(jobs)):
                        raise RuntimeError(
                            f"the first {failed} question(s) of {name!r} all failed; the last "
                            f"with {type(error).__name__}: {error}"
                        ) from error
                else:
                    succeeded += 1
                bar.step(self.spent)

        workers = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(jobs)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def missing(
        self, mode: str, ask: Callable[[int, str], Awaitable[Any]] | None = None
    ) -> list[Job]:
        """Return a job for each row that has no answer yet in a mode.

        Args:
            mode: The mode.
            ask: What to do for a row; None for `ask`.
        """
        length = self.chain.guidance_tokens if mode == "guided" else None
        return [
            ((row, mode, length), partial(ask or self.ask, index, mode))
            for index, row in enumerate(self.keys)
            if (row, mode, length) not in self.answers
        ]


def settings_of(desk: Desk) -> dict[str, Any]:
    """Describe what a run is made with, the same in every process; without keys and addresses.

    Args:
        desk: The run's desk.

    Returns:
        Plain values.
    """
    chain, task = desk.chain, desk.task
    teacher = resolve(chain.teacher, None)
    student: Any = chain.student
    return {
        "task": {
            "name": task.name,
            "style": task.style,
            "shots": len(task.examples),
            "metrics": ["answer", *task.more_metrics],
        },
        "teacher": [_named(model) for model in models_of(teacher)],
        "teacher_bound": _bound(teacher),
        "student": {
            **_named(student),
            "weights": identifying_params(student).get("weights"),
            "dtype": getattr(student, "dtype", None),
        },
        "chain": {
            "guidance_tokens": chain.guidance_tokens,
            "guidance": None if chain.guidance is None else asdict(chain.guidance),
            "max_tokens": chain.max_tokens,
            "temperature": chain.temperature,
            "stop": chain.stop,
            "on_teacher_error": chain.on_teacher_error,
        },
        "prices": {
            "teacher": _priced(desk.teacher_price),
            "student": _priced(desk.student_price),
        },
    }


def _named(model: Any) -> dict[str, Any]:
    """Name a model by what LangChain's traces say of it."""
    params = tracing_params(model)
    return {
        "class": type(model).__name__,
        "provider": params.get("ls_provider"),
        "model": params.get("ls_model_name"),
        "temperature": params.get("ls_temperature"),
        "params": _plain(identifying_params(model)),
        # Without its port: a server of one's own seldom keeps it.
        "host": urlsplit(str(getattr(model, "openai_api_base", None) or "")).hostname,
    }


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what reads the same in every process."""
    kept = {}
    for name, value in params.items():
        try:
            kept[str(name)] = json.loads(json.dumps(value))
        except (TypeError, ValueError):  # clients, functions and the like
            continue
    return kept


def _bound(teacher: Any) -> list[dict[str, Any]]:
    """Return the arguments that wrappers of a teacher add to its calls, the outermost first."""
    if not isinstance(teacher, RunnableBindingBase):
        return []
    return [_plain(teacher.kwargs), *_bound(teacher.bound)]


def _priced(price: Any) -> Any:
    """Write a price down without the day it was given on: a run may take several."""
    if price is None or isinstance(price, str):
        return price
    if isinstance(price, dict):
        return {name: _priced(one) for name, one in price.items()}
    return {name: str(value) for name, value in asdict(price).items() if name != "as_of"}
