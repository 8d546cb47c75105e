"""One call of the chain: the teacher begins, the student finishes, each as a child run.

What happens in a call is written once, as a generator that asks for what it needs and yields
what can be shown; `script` carries its requests out, on the event loop or off it.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_callback_manager_for_config

from langchain_gkt import teacher as teachers
from langchain_gkt.errors import BudgetExceeded, refuse_empty, teacher_error
from langchain_gkt.guidance import Guidance, GuidancePolicy, before_stop
from langchain_gkt.replies import following, provider_of, rest_of, text_chunk, tool_calls
from langchain_gkt.runs import Role, child_config
from langchain_gkt.script import MORE, Ask, Do, Script, acarry_out, ask_async, carry_out
from langchain_gkt.structured import schema_in, with_instruction

Mode = Literal["guided", "teacher", "student"]


@dataclass(kw_only=True)
class _Taught:
    """What the teacher gave in one call, possibly in two attempts."""

    guidance: Guidance | None = None
    tool_reply: AIMessage | None = None
    calls: int = 0
    tokens: int = 0
    usage: UsageMetadata | None = None
    shown: str = ""
    note: str | None = None


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
        model: The teacher's model for this call alone, or None for its own.
        tools: Tools in OpenAI's form.
        tool_arguments: Further arguments of the teacher's ``bind_tools``.
        response_format: Asks for JSON of a schema; see `structured.schema_in`.
        quiet: Whether only handlers that follow runs hear the children; see `child_config`.
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
    model: str | None = None
    tools: Sequence[dict[str, Any]] | None = None
    tool_arguments: dict[str, Any] = field(default_factory=dict)
    response_format: dict[str, Any] | None = None
    quiet: bool = False
    warned: set[str] = field(default_factory=set)

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher is called at all."""
        return self.mode != "student" and self.limit != 0

    @property
    def name(self) -> str:
        """The pair's name in metadata: no vendor's, unless the caller named one."""
        return f"langchain-gkt/{self.model}" if self.model else "langchain-gkt"

    def child(self, role: Role) -> RunnableConfig:
        """Return the config of one model's run."""
        return child_config(
            self.parent,
            role,
            own_callbacks=self.callbacks,
            metadata={"gkt_call_id": self.call_id, "gkt_mode": self.mode},
            quiet=self.quiet,
        )

    def _warn(self, key: str, message: str) -> None:
        if key not in self.warned:
            self.warned.add(key)
            warnings.warn(message, UserWarning, stacklevel=2)

    # --- the teacher ---

    def _held_teacher(self, limit: int | None, *, stream: bool) -> Runnable[Any, Any]:
        if limit is not None and not teachers.can_limit(self.teacher, self.limit_param):
            self._warn(
                "no-limit",
                "the teacher knows no completion limit that could be set; its whole answers are "
                "paid for and cut afterwards. Name its limit with teacher_limit_param=.",
            )
        return teachers.hold(
            self.teacher,
            teachers.Hold(
                limit=limit,
                limit_param=self.limit_param,
                temperature=self.temperature,
                stream=stream,
                tools=self.tools,
                tool_arguments=self.tool_arguments,
            ),
        )

    def _admit_teacher(
        self, messages: list[BaseMessage], limit: int | None, config: RunnableConfig
    ) -> None:
        """Let every listener that holds a budget refuse the call before it costs anything."""
        manager = get_callback_manager_for_config(config)
        for handler in manager.handlers:
            if admit := getattr(handler, "admit_teacher", None):
                admit(
                    list(teachers.models_of(self.teacher)),
                    messages,
                    call_id=self.call_id,
                    mode=self.mode,
                    limit=limit,
                    root=manager.parent_run_id,
                )

    @property
    def _forces_tool(self) -> bool:
        choice = self.tool_arguments.get("tool_choice")
        return bool(self.tools) and choice not in (None, False, "auto", "none")

    def _first_limit(self, reserved: int) -> int | None:
        """Return the limit of the teacher's first reply: none where it must call a tool.

        Args:
            reserved: Tokens the student needs at least.
        """
        if self._forces_tool:
            return self.max_tokens
        if self.limit is None or self.max_tokens is None or not reserved:
            return self.limit
        return max(1, min(self.limit, self.max_tokens - reserved))

    def _ask(
        self, messages: list[BaseMessage], limit: int | None, config: RunnableConfig, *, live: bool
    ) -> Ask:
        streams = (
            live and teachers.streams_usage(self.teacher) and "ignored-limit" not in self.warned
        )
        if self.response_format:
            messages = with_instruction(messages, schema_in(self.response_format))
        self._admit_teacher(messages, limit, config)
        # None would hide what is bound to the teacher.
        arguments: dict[str, Any] = {} if self.stop is None else {"stop": self.stop}
        if self.model:
            arguments["model"] = self.model
        return Ask(
            model=self._held_teacher(limit, stream=streams),
            messages=messages,
            config=config,
            arguments=arguments,
            streams=streams,
            has_async=teachers.has_async(self.teacher),
        )

    def _teach(
        self, messages: list[BaseMessage], taught: _Taught, *, live: bool, reserved: int
    ) -> Script:
        """Ask the teacher; a second time where a tool call ran into the limit."""
        limit = self._first_limit(reserved)
        ask = self._ask(messages, limit, self.child("teacher"), live=live)
        taught.calls += 1
        reply = yield ask
        if ask.streams:
            chunk, reply = reply, None
            while chunk is not None:
                reply = chunk if reply is None else reply + chunk
                if new := self._showable(str(reply.text), limit)[len(taught.shown) :]:
                    taught.shown += new
                    yield text_chunk(new)
                chunk = yield MORE
        self._count(taught, reply)
        broken_off = teachers.broken_off_in_tool_call(reply, limit, bool(self.tools))
        if broken_off and limit != self.max_tokens:
            said, limit = str(reply.text), self.max_tokens
            ask = self._ask(messages, limit, self.child("teacher"), live=False)
            taught.calls += 1
            reply = yield ask
            self._count(taught, reply)
            if taught.shown:
                reply = following(said, reply)
        if reply.tool_calls or reply.invalid_tool_calls:
            taught.tool_reply = reply
        else:
            taught.guidance = self._read(reply, limit, taught)

    def _count(self, taught: _Taught, reply: AIMessage) -> None:
        taught.tokens += teachers.completion_tokens(reply)
        if reply.usage_metadata:
            taught.usage = add_usage(taught.usage, reply.usage_metadata)

    def _read(self, message: AIMessage, limit: int | None, taught: _Taught) -> Guidance:
        # Where nobody continues, nothing is cut.
        last = self.mode != "guided" or (limit is not None and limit == self.max_tokens)
        policy = GuidancePolicy(cut="none") if last else self.policy
        guidance = teachers.read(message, limit, policy, self.stop)
        if limit is not None and guidance.usage and guidance.token_count > limit:
            self._warn(
                "ignored-limit",
                f"the teacher wrote {guidance.token_count} tokens although it was asked for at "
                f"most {limit}; they are paid for. Its server may know the limit by another "
                "name: see teacher_limit_param.",
            )
        if self.response_format:
            from langchain_gkt.json_guidance import begun_json, whole_json  # needs an extra

            schema = schema_in(self.response_format)
            text, complete = begun_json(guidance.written, schema)
            if not complete and (whole := whole_json(guidance.written, schema, taught.shown)):
                text, complete = whole, True
            if complete or self.mode == "guided":
                guidance = replace(guidance, text=text, complete=complete)
                taught.note = None if text else "the teacher wrote no JSON of the schema"
        if len(taught.shown) > len(guidance.text):  # what has been shown cannot be taken back
            return replace(guidance, text=taught.shown)
        return guidance

    def _showable(self, written: str, limit: int | None) -> str:
        """Return what of a growing guidance can be shown: its last word may be cut away."""
        written = before_stop(written, self.stop)
        if self.mode != "guided":
            return "" if self.response_format else written
        if limit is not None:
            # A server may ignore the limit; what is beyond it is known at the end only.
            written = written[: 4 * limit]
        if not self.response_format:
            return self.policy.trim(written)
        from langchain_gkt.json_guidance import begun_json

        text = begun_json(written, schema_in(self.response_format))[0]
        return text if ":" in text else ""

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

    # --- the student ---

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
        reserved = 0
        ahead: AbstractContextManager[Any] = nullcontext()
        if self.mode != "teacher" and hasattr(self.student, "check"):
            reserved, ahead = yield Do(partial(self._prepare, messages))
        with ahead:
            yield from self._answer(messages, live=live, reserved=reserved)

    def _prepare(self, messages: list[BaseMessage]) -> tuple[int, AbstractContextManager[Any]]:
        """Refuse what the student cannot answer before a teacher is paid, and let it read ahead.

        Returns:
            Tokens that the student needs at least, and what frees the prompt's KV cache.
        """
        student: Any = self.student
        asked: dict[str, Any] = {
            "tools": self._students_tools(),
            "response_format": self.response_format,
        }
        room = self.limit or 0 if self.asks_teacher else 0
        reserved = student.check(messages, reserve=room, **asked)
        if self.max_tokens is not None and reserved > self.max_tokens:
            raise ValueError(
                f"max_tokens={self.max_tokens} cannot hold an answer of this schema, whose "
                f"shortest takes {reserved} tokens; raise max_tokens"
            )
        if not self.asks_teacher or not hasattr(student, "prefill"):
            return reserved, nullcontext()
        return reserved, student.prefill(messages, **asked)

    def _answer(self, messages: list[BaseMessage], *, live: bool, reserved: int) -> Script:
        taught, student, error = _Taught(), None, None
        if self.asks_teacher:
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
        self, taught: _Taught, student: AIMessage | None, fallback: str | None
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
            return self._read(reply, self.limit, _Taught())
        except Exception as error:
            raise teacher_error(error) from error

    async def aguide(self, messages: list[BaseMessage], config: RunnableConfig) -> Guidance:
        """Do what `guide` does, on the event loop."""
        try:
            reply = await ask_async(self._ask(messages, self.limit, config, live=False))
            return self._read(reply, self.limit, _Taught())
        except Exception as error:
            raise teacher_error(error) from error


def _knows_tools(student: BaseChatModel) -> bool:
    known = getattr(student, "knows_tools", None)
    return (
        type(student).bind_tools is not BaseChatModel.bind_tools if known is None else bool(known)
    )
