"""One call of the chain: the teacher begins, the student finishes, each as a child run."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor

from langchain_gkt import teacher as teachers
from langchain_gkt.errors import TeacherError
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.runs import Role, child_config

Mode = Literal["guided", "teacher", "student"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """The models and settings of one call, fields and call-time arguments taken together.

    Attributes:
        teacher: A chat model, wrapped or not.
        student: A chat model that continues a trailing AIMessage.
        call_id: Names the call in both children's metadata.
        mode: Which of the models answer.
        policy: Where guidance is cut.
        limit: Most completion tokens of the teacher; None for its own limit.
        limit_param: The teacher's own name for that limit, if it is not a usual one.
        max_tokens: Most tokens of the whole answer; None for the models' own limits.
        temperature: Sampling temperature of both models; None for their own.
        stop: Strings that end the answer.
        fall_back: Whether the student answers alone where the teacher fails.
        parent: The chain's run, or None where nobody listens.
        callbacks: Handlers given to the chain's constructor.
        warned: What the chain has already warned of.
    """

    teacher: Runnable[Any, Any]
    student: BaseChatModel
    call_id: str
    mode: Mode
    policy: GuidancePolicy
    limit: int | None
    limit_param: str | None
    max_tokens: int | None
    temperature: float | None
    stop: list[str] | None
    fall_back: bool
    parent: BaseRunManager | None
    callbacks: Callbacks
    warned: set[str] = field(default_factory=set)

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher is called at all."""
        return self.mode != "student" and self.limit != 0

    def child(self, role: Role) -> RunnableConfig:
        """Return the config of one model's run."""
        return child_config(
            self.parent,
            role,
            own_callbacks=self.callbacks,
            metadata={"gkt_call_id": self.call_id, "gkt_mode": self.mode},
        )

    def _held_teacher(self, *, stream: bool) -> Runnable[Any, Any]:
        if self.limit is not None and not teachers.can_limit(self.teacher, self.limit_param):
            self._warn(
                "no-limit",
                "the teacher knows no completion limit that could be set; its whole answers are "
                "paid for and cut afterwards. Name its limit with teacher_limit_param=.",
            )
        return teachers.hold(
            self.teacher,
            self.limit,
            limit_param=self.limit_param,
            temperature=self.temperature,
            stream=stream,
        )

    def _warn(self, key: str, message: str) -> None:
        if key not in self.warned:
            self.warned.add(key)
            warnings.warn(message, UserWarning, stacklevel=2)

    def _read(self, message: BaseMessage, shown: str = "") -> Guidance:
        policy = self.policy if self.mode == "guided" else GuidancePolicy(cut="none")
        guidance = teachers.read(message, self.limit, policy, self.stop)
        if self.limit is not None and guidance.usage and guidance.token_count > self.limit:
            self._warn(
                "ignored-limit",
                f"the teacher wrote {guidance.token_count} tokens although it was asked for at "
                f"most {self.limit}; they are paid for. Its server may know the limit by another "
                "name: see teacher_limit_param.",
            )
        if len(shown) > len(guidance.text):  # what has been shown cannot be taken back
            return Guidance(**{**vars(guidance), "text": shown})
        return guidance

    def _after_teacher(self, error: Exception | None) -> str | None:
        """Raise a failed teacher call, or say what the student has to do without."""
        if error is None:
            return None
        if self.fall_back and self.mode == "guided":
            return f"{type(error).__name__}: {error}"
        raise _teacher_error(error) from error

    def _student_call(
        self, messages: list[BaseMessage], guidance: Guidance | None
    ) -> tuple[list[BaseMessage], dict[str, Any]] | None:
        """Return the student's input and arguments, or None where nothing is left to write."""
        if self.mode == "teacher" or (guidance and guidance.complete):
            return None
        arguments: dict[str, Any] = {"stop": self.stop}
        if self.temperature is not None:
            arguments["temperature"] = self.temperature
        if self.max_tokens is not None:
            left = self.max_tokens - (guidance.token_count if guidance else 0)
            if left <= 0:
                return None
            arguments["max_tokens"] = left
        if guidance and guidance.text:
            begun = guidance.text
            if messages and isinstance(messages[-1], AIMessage):
                begun, messages = f"{messages[-1].text}{begun}", messages[:-1]
            messages = [*messages, AIMessage(begun)]
        return messages, arguments

    def _last_chunk(
        self,
        guidance: Guidance | None,
        student: AIMessage | None,
        fallback: str | None,
    ) -> ChatGenerationChunk:
        """Build the chunk that carries usage and metadata, and no text."""
        teacher_usage = guidance.usage if guidance else None
        student_usage = student.usage_metadata if student else None
        known = [usage for usage in (teacher_usage, student_usage) if usage]
        usage: UsageMetadata | None = None
        for part in known:
            usage = add_usage(usage, part)
        if student:
            reason = student.response_metadata.get("finish_reason")
        else:
            reason = guidance.finish_reason if guidance else None
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=usage,
                response_metadata={
                    "model_name": "langchain-gkt",
                    "model_provider": "langchain-gkt",
                    "finish_reason": reason or "stop",
                    "gkt": {
                        "guidance": guidance.text if guidance else "",
                        "guidance_tokens": guidance.token_count if guidance else 0,
                        "finished_by": "student" if student else "teacher",
                        "teacher_usage": teacher_usage,
                        "student_usage": student_usage,
                        "fallback": fallback,
                        "written_chars": len(guidance.written) if guidance else 0,
                        "mode": self.mode,
                        "call_id": self.call_id,
                    },
                },
                chunk_position="last",
            )
        )

    def produce(self, messages: list[BaseMessage], *, live: bool) -> Iterator[ChatGenerationChunk]:
        """Run one call; with ``live`` the children stream, else each gives its text at once."""
        with self._prefill_ahead(messages), closing(self._produce(messages, live=live)) as chunks:
            yield from chunks

    async def aproduce(
        self, messages: list[BaseMessage], *, live: bool
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Do what `produce` does, on the event loop."""
        ahead: AbstractContextManager[Any] = nullcontext()
        if self._reads_ahead:  # tokenising takes a while, and the loop has others to serve
            ahead = await run_in_executor(None, self._prefill_ahead, messages)
        with ahead:
            async with aclosing(self._aproduce(messages, live=live)) as chunks:
                async for chunk in chunks:
                    yield chunk

    @property
    def _reads_ahead(self) -> bool:
        return self.mode == "guided" and self.asks_teacher and hasattr(self.student, "prefill")

    def _prefill_ahead(self, messages: list[BaseMessage]) -> AbstractContextManager[Any]:
        """Let the student read the prompt while the teacher writes, if it can."""
        if not self._reads_ahead:
            return nullcontext()
        student: Any = self.student
        try:
            ahead: AbstractContextManager[Any] = student.prefill(messages)
        except Exception:  # noqa: BLE001  the call itself says what is wrong with the messages
            return nullcontext()
        return ahead

    def _produce(
        self, messages: list[BaseMessage], *, live: bool
    ) -> Generator[ChatGenerationChunk, None, None]:
        _refuse_empty(messages)
        guidance, error, shown = None, None, ""
        if self.asks_teacher:
            streams = live and teachers.streams_usage(self.teacher)
            held = self._held_teacher(stream=streams)
            config = self.child("teacher")
            try:
                if streams:
                    whole: Any = None
                    chunks: Any = held.stream(messages, config, stop=self.stop)
                    with closing(chunks):
                        for chunk in chunks:
                            whole = chunk if whole is None else whole + chunk
                            if new := self._showable(str(whole.text))[len(shown) :]:
                                shown += new
                                yield _text(new)
                else:
                    whole = held.invoke(messages, config, stop=self.stop)
                guidance = self._read(whole, shown)
            except Exception as caught:  # noqa: BLE001  whatever a provider raises
                error = caught
        fallback = self._after_teacher(error)
        if guidance and (new := guidance.text[len(shown) :]):
            yield _text(new)
        student: Any = None
        if todo := self._student_call(messages, guidance):
            config = self.child("student")
            if live:
                pieces: Any = self.student.stream(todo[0], config, **todo[1])
                with closing(pieces):
                    for chunk in pieces:
                        student = chunk if student is None else student + chunk
                        if chunk.text:
                            yield _text(str(chunk.text))
            else:
                student = self.student.invoke(todo[0], config, **todo[1])
                if student.text:
                    yield _text(str(student.text))
        yield self._last_chunk(guidance, student, fallback)

    async def _aproduce(
        self, messages: list[BaseMessage], *, live: bool
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        _refuse_empty(messages)
        guidance, error, shown = None, None, ""
        if self.asks_teacher:
            streams = live and teachers.streams_usage(self.teacher)
            held = self._held_teacher(stream=streams)
            config = self.child("teacher")
            try:
                if streams:
                    whole: Any = None
                    chunks: Any = held.astream(messages, config, stop=self.stop)
                    async with aclosing(chunks):
                        async for chunk in chunks:
                            whole = chunk if whole is None else whole + chunk
                            if new := self._showable(str(whole.text))[len(shown) :]:
                                shown += new
                                yield _text(new)
                else:
                    whole = await self._ask_async(held, messages, config)
                guidance = self._read(whole, shown)
            except Exception as caught:  # noqa: BLE001  whatever a provider raises
                error = caught
        fallback = self._after_teacher(error)
        if guidance and (new := guidance.text[len(shown) :]):
            yield _text(new)
        student: Any = None
        if todo := self._student_call(messages, guidance):
            config = self.child("student")
            if live:
                pieces: Any = self.student.astream(todo[0], config, **todo[1])
                async with aclosing(pieces):
                    async for chunk in pieces:
                        student = chunk if student is None else student + chunk
                        if chunk.text:
                            yield _text(str(chunk.text))
            else:
                student = await self.student.ainvoke(todo[0], config, **todo[1])
                if student.text:
                    yield _text(str(student.text))
        yield self._last_chunk(guidance, student, fallback)

    async def _ask_async(
        self,
        held: Runnable[Any, Any],
        messages: list[BaseMessage],
        config: RunnableConfig,
    ) -> Any:
        if teachers.has_async(self.teacher):
            return await held.ainvoke(messages, config, stop=self.stop)
        return await run_in_executor(None, held.invoke, messages, config, stop=self.stop)

    def _showable(self, written: str) -> str:
        """Return what of a growing guidance can be shown: its last word may be cut away."""
        return self.policy.trim(written) if self.mode == "guided" else written

    def guide(self, messages: list[BaseMessage], config: RunnableConfig) -> Guidance:
        """Ask the teacher alone; the config is the teacher's own."""
        try:
            held = self._held_teacher(stream=False)
            return self._read(held.invoke(messages, config, stop=self.stop))
        except Exception as error:
            raise _teacher_error(error) from error

    async def aguide(self, messages: list[BaseMessage], config: RunnableConfig) -> Guidance:
        """Do what `guide` does, on the event loop."""
        try:
            held = self._held_teacher(stream=False)
            return self._read(await self._ask_async(held, messages, config))
        except Exception as error:
            raise _teacher_error(error) from error


def _refuse_empty(messages: list[BaseMessage]) -> None:
    """Refuse what no model can answer before a teacher is paid for it."""
    if not any(
        message.content if isinstance(message.content, list) else message.content.strip()
        for message in messages
    ):
        raise ValueError("messages must hold some text to answer; the prompt is empty")


def _text(text: str) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


def _teacher_error(error: Exception) -> TeacherError:
    """Say what failed, and what can be done about it."""
    if isinstance(error, TeacherError):
        return error
    return TeacherError(
        f"the teacher's call failed: {type(error).__name__}: {error} Check that teacher is "
        "reachable and its key valid, wrap it with with_retry() or with_fallbacks(), or set "
        "on_teacher_error='student' to go on without guidance."
    )
