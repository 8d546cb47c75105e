"""The teacher's part of a call: asked within its limit, and read as guidance or a tool call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_callback_manager_for_config

from langchain_gkt.chain.callbacks import Role, child_config
from langchain_gkt.chain.drivers import MORE, Ask, Script
from langchain_gkt.chain.messages import following, text_chunk
from langchain_gkt.guidance import Guidance, GuidancePolicy, before_stop
from langchain_gkt.structured_output.schema import schema_in, with_instruction
from langchain_gkt.teachers import settings as teachers

Mode = Literal["guided", "teacher", "student"]


@dataclass(kw_only=True)
class Taught:
    """What the teacher gave in one call, possibly in two attempts."""

    guidance: Guidance | None = None
    tool_reply: AIMessage | None = None
    calls: int = 0
    tokens: int = 0
    usage: UsageMetadata | None = None
    shown: str = ""
    note: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The models and settings of one call, and the teacher's part of it.

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
        """Whether the teacher may be called at all."""
        if self.mode == "guided" and self.policy.ask == "never":
            return False
        return self.mode != "student" and self.limit != 0

    @property
    def gated(self) -> bool:
        """Whether the student's confidence decides if the teacher is called."""
        # Tool calls are the teacher's, and the first tokens of an object are its braces.
        plain = not self.tools and not self.response_format
        return self.mode == "guided" and plain and self.policy.threshold is not None

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
        self, messages: list[BaseMessage], taught: Taught, *, live: bool, reserved: int
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

    def _count(self, taught: Taught, reply: AIMessage) -> None:
        taught.tokens += teachers.completion_tokens(reply)
        if reply.usage_metadata:
            taught.usage = add_usage(taught.usage, reply.usage_metadata)

    def _read(self, message: AIMessage, limit: int | None, taught: Taught) -> Guidance:
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
            from langchain_gkt.structured_output.begun_json import (  # needs an extra
                begun_json,
                whole_json,
            )

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
        from langchain_gkt.structured_output.begun_json import begun_json

        text = begun_json(written, schema_in(self.response_format))[0]
        return text if ":" in text else ""
