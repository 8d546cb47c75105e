"""One call of the chain: the teacher begins, the student finishes, each as a child run.

What happens in a call is written once, as a generator that asks for what it needs and yields
what can be shown; `script` carries its requests out, on the event loop or off it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_gkt.chain.drivers import MORE, Ask, Do, Script, acarry_out, ask_async, carry_out
from langchain_gkt.chain.messages import provider_of, rest_of, text_chunk, tool_calls
from langchain_gkt.chain.teacher_step import Lesson, Mode, Taught
from langchain_gkt.errors import BudgetExceeded, refuse_empty, teacher_error
from langchain_gkt.guidance import Guidance, GuidancePolicy, confidence
from langchain_gkt.teachers import settings as teachers

__all__ = ["Call", "KnowsConfidence", "Mode"]


@runtime_checkable
class KnowsConfidence(Protocol):
    """A student that can say how sure it is; see `HuggingFaceStudent.probe`."""

    def probe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Return the probabilities of the first tokens of its own answer."""
        ...

    async def aprobe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Do the same, on the event loop."""
        ...


def refuse_unsure_student(student: BaseChatModel, policy: GuidancePolicy) -> KnowsConfidence:
    """Refuse a student that cannot say how sure it is, where a policy goes by that.

    Args:
        student: The student.
        policy: The policy.

    Returns:
        The student.

    Raises:
        ValueError: If it cannot.
    """
    if not isinstance(student, KnowsConfidence):
        raise ValueError(
            f"guidance.ask={policy.ask} goes by the student's confidence, which a "
            f"{type(student).__name__} does not tell; use a HuggingFaceStudent or ask='always'"
        )
    return student


@dataclass(frozen=True, kw_only=True)
class Call(Lesson):
    """One call: the fields and call-time arguments of a chain taken together."""

    def _after_teacher(self, error: Exception | None) -> str | None:
        """Raise a failed teacher call, or say what the student has to do without."""
        if error is None:
            return None
        if isinstance(error, BudgetExceeded):
            if error.go_on and self.mode == "guided":
                return f"BudgetExceeded: {error}"
            raise error
        helpless = self._forces_tool and not self._students_tools()
        if self.fall_back and self.mode == "guided" and not helpless:
            return f"{type(error).__name__}: {error}"
        raise teacher_error(error) from error

    def _students_tools(self) -> Sequence[dict[str, Any]] | None:
        return self.tools if self.tools and _knows_tools(self.student) else None

    def _student_ask(
        self, messages: list[BaseMessage], guidance: Guidance | None, tokens: int, *, live: bool
    ) -> Ask | None:
        """Return the student's part, or None where nothing is left to write."""
        if self.mode == "teacher" or (guidance and guidance.complete):
            return None
        arguments: dict[str, Any] = {} if self.stop is None else {"stop": self.stop}
        if self.temperature is not None:
            arguments["temperature"] = self.temperature
        if self.max_tokens is not None:
            left = max(0, self.max_tokens - tokens)
            if not left and not self.response_format:  # an object must be finished
                return None
            arguments["max_tokens"] = left
        if self.response_format:
            arguments["response_format"] = self.response_format
        if guidance and guidance.text:
            begun = guidance.text
            if messages and isinstance(messages[-1], AIMessage):
                begun, messages = f"{messages[-1].text}{begun}", messages[:-1]
            messages = [*messages, AIMessage(begun)]
        model: Runnable[Any, Any] = self.student
        if not getattr(model, "names_weights", False) and self.student.cache is None:
            # Others may look alike to LangChain's cache; the chain's own entry is enough.
            model = self.student.model_copy(update={"cache": False})
        if tools := self._students_tools():
            # The choice was the teacher's; a begun text is no tool call that could be forced.
            choice = None if guidance else self.tool_arguments.get("tool_choice")
            model = model.bind_tools(tools, tool_choice=choice)  # type: ignore[attr-defined]
        elif self.tools and guidance is None and not self.asks_teacher:
            raise NotImplementedError(
                "without a teacher (mode='student', guidance_tokens=0) tools need a student "
                "whose chat template knows tools"
            )
        return Ask(
            model=model,
            messages=messages,
            config=self.child("student"),
            arguments=arguments,
            streams=live,
        )

    def _learn(self, ask: Ask) -> Generator[Any, Any, AIMessage]:
        """Have the student write, showing what it writes."""
        reply = yield ask
        if ask.streams:
            chunk, reply = reply, None
            while chunk is not None:
                reply = chunk if reply is None else reply + chunk
                if chunk.text:
                    yield text_chunk(str(chunk.text))
                chunk = yield MORE
        elif reply.text:
            yield text_chunk(str(reply.text))
        if reply.tool_calls or reply.invalid_tool_calls:
            yield tool_calls(reply, "")
        answer: AIMessage = reply
        return answer

    # --- the whole ---

    def _script(self, messages: list[BaseMessage], *, live: bool) -> Script:
        refuse_empty(messages)
        reserved, taught = 0, Taught()
        ahead: AbstractContextManager[Any] = nullcontext()
        asks = self.asks_teacher
        if asks and self.gated:
            taught.confidence = confidence((yield self._probe(messages)))
            asks = taught.confidence < (self.policy.threshold or 0.0)
        if self.mode != "teacher" and hasattr(self.student, "check"):
            prepare = partial(self._prepare, messages, asks)
            reserved, ahead = yield Do(
                prepare, undo=lambda made: made[1].__exit__(None, None, None)
            )
        with ahead:
            yield from self._answer(messages, taught, asks, live=live, reserved=reserved)

    def _probe(self, messages: list[BaseMessage]) -> Do:
        student, tokens = refuse_unsure_student(self.student, self.policy), self.policy.probe_tokens
        return Do(
            partial(student.probe, messages, tokens=tokens),
            partial(student.aprobe, messages, tokens=tokens),
        )

    def _prepare(
        self, messages: list[BaseMessage], asks: bool
    ) -> tuple[int, AbstractContextManager[Any]]:
        """Refuse what the student cannot answer before a teacher is paid, and let it read ahead.

        Args:
            messages: The conversation.
            asks: Whether the teacher will be asked.

        Returns:
            Tokens that the student needs at least, and what frees the prompt's KV cache.
        """
        student: Any = self.student
        asked: dict[str, Any] = {
            "tools": self._students_tools(),
            "response_format": self.response_format,
        }
        room = self.limit or 0 if asks else 0
        reserved = student.check(messages, reserve=room, **asked)
        if self.max_tokens is not None and reserved > self.max_tokens:
            raise ValueError(
                f"max_tokens={self.max_tokens} cannot hold an answer of this schema, whose "
                f"shortest takes {reserved} tokens; raise max_tokens"
            )
        if not asks or not hasattr(student, "prefill"):
            return reserved, nullcontext()
        return reserved, student.prefill(messages, **asked)

    def _answer(
        self,
        messages: list[BaseMessage],
        taught: Taught,
        asks: bool,
        *,
        live: bool,
        reserved: int,
    ) -> Script:
        student, error = None, None
        if asks:
            try:
                yield from self._teach(messages, taught, live=live, reserved=reserved)
            except Exception as caught:  # noqa: BLE001  whatever a provider raises
                error = caught
                if taught.shown:  # the student goes on from there, if it may
                    count = max(1, len(taught.shown) // 4)
                    taught.tokens += count
                    taught.guidance = Guidance(
                        text=taught.shown, token_count=count, written=taught.shown
                    )
        fallback = self._after_teacher(error) or taught.note
        if taught.tool_reply:
            yield tool_calls(taught.tool_reply, rest_of(taught.tool_reply, taught.shown))
        else:
            guidance = taught.guidance
            if guidance and (new := guidance.text[len(taught.shown) :]):
                yield text_chunk(new)
            if ask := self._student_ask(messages, guidance, taught.tokens, live=live):
                student = yield from self._learn(ask)
        yield self._last_chunk(taught, student, fallback)

    def _last_chunk(
        self, taught: Taught, student: AIMessage | None, fallback: str | None
    ) -> ChatGenerationChunk:
        """Build the chunk that carries usage and metadata, and no text."""
        student_usage = student.usage_metadata if student else None
        usage: UsageMetadata | None = None
        for part in filter(None, (taught.usage, student_usage)):
            usage = add_usage(usage, part)
        guidance, reason = taught.guidance, None
        if student:
            reason = student.response_metadata.get("finish_reason")
        elif guidance:
            reason = guidance.finish_reason
        elif taught.tool_reply:
            reason = teachers.finish_reason(taught.tool_reply)
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=usage,
                response_metadata={
                    "model_name": self.name,
                    "model_provider": provider_of(taught.tool_reply),
                    "finish_reason": reason or "stop",
                    "gkt": {
                        "guidance": guidance.text if guidance else "",
                        "guidance_tokens": taught.tokens,
                        "finished_by": "student" if student else "teacher",
                        "teacher_usage": taught.usage,
                        "teacher_calls": taught.calls,
                        "student_usage": student_usage,
                        "fallback": fallback,
                        "confidence": taught.confidence,
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
        return carry_out(self._script(messages, live=live))

    def aproduce(
        self, messages: list[BaseMessage], *, live: bool
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Do what `produce` does, on the event loop."""
        return acarry_out(self._script(messages, live=live))

    def guide(self, messages: list[BaseMessage], config: RunnableConfig) -> Guidance:
        """Ask the teacher alone; the config is the teacher's own."""
        try:
            ask = self._ask(messages, self.limit, config, live=False)
            reply = ask.model.invoke(ask.messages, config, **ask.arguments)
            return self._read(reply, self.limit, Taught())
        except Exception as error:
            raise teacher_error(error) from error

    async def aguide(self, messages: list[BaseMessage], config: RunnableConfig) -> Guidance:
        """Do what `guide` does, on the event loop."""
        try:
            reply = await ask_async(self._ask(messages, self.limit, config, live=False))
            return self._read(reply, self.limit, Taught())
        except Exception as error:
            raise teacher_error(error) from error


def _knows_tools(student: BaseChatModel) -> bool:
    known = getattr(student, "knows_tools", None)
    return (
        type(student).bind_tools is not BaseChatModel.bind_tools if known is None else bool(known)
    )
