"""GuidedKnowledgeTransferChain: a big teacher begins each answer, a small student finishes it."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs, run_in_executor
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from langchain_gkt import teacher as teachers
from langchain_gkt.errors import TeacherError, refuse_unknown
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.runs import Role, child_config, open_run
from langchain_gkt.students import as_student

Mode = Literal["guided", "teacher", "student"]

_CALL_ARGUMENTS = ("guidance_tokens", "guidance", "mode", "max_tokens", "temperature")


@dataclass(frozen=True, kw_only=True)
class _Call:
    """The settings of one call, fields and call-time arguments taken together."""

    call_id: str
    mode: Mode
    policy: GuidancePolicy
    limit: int | None
    max_tokens: int | None
    temperature: float | None
    stop: list[str] | None
    parent: BaseRunManager | None

    @property
    def asks_teacher(self) -> bool:
        return self.mode != "student" and self.limit != 0


class GuidedKnowledgeTransferChain(BaseChatModel):
    """A chat model whose answers are begun by a teacher and finished by a local student.

    The teacher writes at most ``guidance_tokens`` tokens; the student reads the conversation
    with that guidance as the beginning of its own answer and writes the rest (Yao, Li & Zhao,
    "GKT", Findings of ACL 2024, section 3). No fine-tuning, no shared vocabulary.

    ``message.response_metadata["gkt"]`` of an answer holds ``guidance`` (text),
    ``guidance_tokens`` (the teacher's completion tokens, what was cut away included),
    ``finished_by``, ``teacher_usage``, ``student_usage``, ``fallback``, ``mode`` and
    ``call_id``.

    Example:
        >>> chain = GuidedKnowledgeTransferChain(  # doctest: +SKIP
        ...     teacher=ChatOpenAI(model="gpt-4o-mini"),
        ...     student="path/or/repo-id",
        ...     guidance_tokens=40,
        ... )
        >>> chain.invoke("Q: ...").text  # doctest: +SKIP

    Raises:
        TypeError: If an argument is unknown, or teacher or student are of no known kind.
        ValueError: If a value makes no sense.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    teacher: Any = Field(repr=False)
    """Any LangChain chat model, or one wrapped by bind, with_retry or with_fallbacks."""
    student: Any
    """Whatever `as_student` takes."""
    guidance_tokens: int = Field(default=40, ge=0)
    """Most completion tokens the teacher may write. 0 asks no teacher."""
    guidance: GuidancePolicy | None = None
    """How guidance is measured and cut; None for whole words."""
    mode: Mode = "guided"
    """``teacher`` and ``student`` are the single-model baselines, through the same door."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a whole answer, guidance included; None for the models' own limits."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature of both models; None for their own."""
    stop: list[str] | None = None
    """Strings that end an answer when a call names none."""
    student_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Fields of `HuggingFaceStudent`, for a student that is yet to be loaded."""
    on_teacher_error: Literal["raise", "student"] = "raise"
    """Whether a failing teacher fails the call or leaves it to the student."""
    teacher_limit_param: str | None = None
    """The teacher's name for its completion limit, where it is not a usual one."""

    _run: BaseRunManager | None = PrivateAttr(default=None)
    _producer: Any = PrivateAttr(default=None)
    _warned: set[str] = PrivateAttr(default_factory=set)

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Any) -> Any:
        refuse_unknown(values, cls.model_fields, cls.__name__)
        tokens = values.get("guidance_tokens")
        if isinstance(tokens, int) and tokens < 0:
            raise ValueError(f"guidance_tokens must be 0 (student only) or more, not {tokens}")
        if "student" not in values:
            return values  # pydantic says that it is missing
        kwargs = values.get("student_kwargs") or {}
        return {**values, "student": as_student(values["student"], **kwargs), "student_kwargs": {}}

    @field_validator("teacher")
    @classmethod
    def _check_teacher(cls, teacher: Any) -> Any:
        list(teachers.models_of(teacher))
        return teacher

    @model_validator(mode="after")
    def _check_policy(self) -> GuidedKnowledgeTransferChain:
        asked = self.guidance.tokens if self.guidance else None
        if asked is not None and "guidance_tokens" in self.model_fields_set:
            if asked != self.guidance_tokens:
                raise ValueError(
                    f"guidance_tokens={self.guidance_tokens} and guidance.tokens={asked} disagree; "
                    "give one of them"
                )
        return self

    @property
    def _llm_type(self) -> str:
        return "langchain-gkt"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What LangChain's cache tells two chains apart by."""
        names = (
            "guidance_tokens",
            "guidance",
            "mode",
            "max_tokens",
            "temperature",
            "stop",
            "on_teacher_error",
            "teacher_limit_param",
        )
        # Vendor ids stay out of fields that agents choose strategies by.
        return {
            "model_name": "langchain-gkt",
            "teacher": [
                {"class": type(model).__name__, **model._identifying_params}
                for model in teachers.models_of(self.teacher)
            ],
            "student": {"class": type(self.student).__name__, **self.student._identifying_params},
            **{name: getattr(self, name) for name in names},
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "langchain-gkt"
        params["ls_model_name"] = "langchain-gkt"
        return params

    # --- one call ---

    def _settings(
        self, stop: list[str] | None, parent: BaseRunManager | None, kwargs: dict[str, Any]
    ) -> _Call:
        refuse_unknown(kwargs, _CALL_ARGUMENTS, f"a call of {type(self).__name__}")
        given = {name: kwargs.get(name, getattr(self, name)) for name in _CALL_ARGUMENTS}
        if given["mode"] not in ("guided", "teacher", "student"):
            raise ValueError(
                f"mode must be 'guided', 'teacher' or 'student', not {given['mode']!r}"
            )
        policy = given["guidance"] or GuidancePolicy()
        limit: int | None = policy.tokens
        if limit is None or "guidance_tokens" in kwargs:
            limit = given["guidance_tokens"]
        if not isinstance(limit, int) or limit < 0:
            raise ValueError(f"guidance_tokens must be 0 (student only) or more, not {limit}")
        most = given["max_tokens"]
        if given["mode"] == "teacher":
            limit = most
        elif most is not None:
            limit = min(limit, most)
        return _Call(
            call_id=str(uuid.uuid4()),
            mode=given["mode"],
            policy=policy,
            limit=limit,
            max_tokens=most,
            temperature=given["temperature"],
            stop=stop if stop is not None else self.stop,
            parent=parent,
        )

    def _child(self, role: Role, call: _Call) -> RunnableConfig:
        return child_config(
            call.parent,
            role,
            own_callbacks=self.callbacks,
            metadata={"gkt_call_id": call.call_id, "gkt_mode": call.mode},
        )

    def _held_teacher(self, call: _Call, *, stream: bool) -> Runnable[Any, Any]:
        if call.limit is not None and not teachers.can_limit(
            self.teacher, self.teacher_limit_param
        ):
            self._warn(
                "no-limit",
                "the teacher knows no completion limit that could be set; its whole answers are "
                "paid for and cut afterwards. Name its limit with teacher_limit_param=.",
            )
        return teachers.hold(
            self.teacher,
            call.limit,
            limit_param=self.teacher_limit_param,
            temperature=call.temperature,
            stream=stream,
        )

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(message, UserWarning, stacklevel=2)

    def _read(self, message: BaseMessage, call: _Call, shown: str = "") -> Guidance:
        policy = call.policy if call.mode == "guided" else GuidancePolicy(cut="none")
        guidance = teachers.read(message, call.limit, policy, call.stop)
        if call.limit is not None and guidance.usage and guidance.token_count > call.limit:
            self._warn(
                "ignored-limit",
                f"the teacher wrote {guidance.token_count} tokens although it was asked for at "
                f"most {call.limit}; they are paid for. Its server may know the limit by another "
                "name: see teacher_limit_param.",
            )
        if len(shown) > len(guidance.text):  # what has been shown cannot be taken back
            return Guidance(**{**vars(guidance), "text": shown})
        return guidance

    def _after_teacher(self, error: Exception | None, call: _Call) -> str | None:
        """Raise a failed teacher call, or say what the student has to do without."""
        if error is None:
            return None
        if self.on_teacher_error == "student" and call.mode == "guided":
            return f"{type(error).__name__}: {error}"
        raise _teacher_error(error) from error

    def _student_call(
        self, messages: list[BaseMessage], guidance: Guidance | None, call: _Call
    ) -> tuple[list[BaseMessage], dict[str, Any]] | None:
        """Return the student's input and arguments, or None where nothing is left to write."""
        if call.mode == "teacher" or (guidance and guidance.complete):
            return None
        arguments: dict[str, Any] = {"stop": call.stop}
        if call.temperature is not None:
            arguments["temperature"] = call.temperature
        if call.max_tokens is not None:
            left = call.max_tokens - (guidance.token_count if guidance else 0)
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
        call: _Call,
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
                        "mode": call.mode,
                        "call_id": call.call_id,
                    },
                },
                chunk_position="last",
            )
        )

    def _produce(
        self, messages: list[BaseMessage], call: _Call, *, live: bool
    ) -> Iterator[ChatGenerationChunk]:
        """Run one call; with ``live`` the children stream, else each gives its text at once."""
        guidance, error, shown = None, None, ""
        if call.asks_teacher:
            streams = live and teachers.streams_usage(self.teacher)
            held = self._held_teacher(call, stream=streams)
            config = self._child("teacher", call)
            try:
                if streams:
                    whole: Any = None
                    with closing(held.stream(messages, config, stop=call.stop)) as chunks:  # type: ignore[type-var]
                        for chunk in chunks:
                            whole = chunk if whole is None else whole + chunk
                            if new := self._showable(str(whole.text), call)[len(shown) :]:
                                shown += new
                                yield _text(new)
                else:
                    whole = held.invoke(messages, config, stop=call.stop)
                guidance = self._read(whole, call, shown)
            except Exception as caught:  # noqa: BLE001  whatever a provider raises
                error = caught
        fallback = self._after_teacher(error, call)
        if guidance and (new := guidance.text[len(shown) :]):
            yield _text(new)
        student: Any = None
        if todo := self._student_call(messages, guidance, call):
            config = self._child("student", call)
            if live:
                with closing(self.student.stream(todo[0], config, **todo[1])) as chunks:
                    for chunk in chunks:
                        student = chunk if student is None else student + chunk
                        if chunk.text:
                            yield _text(str(chunk.text))
            else:
                student = self.student.invoke(todo[0], config, **todo[1])
                if student.text:
                    yield _text(str(student.text))
        yield self._last_chunk(call, guidance, student, fallback)

    async def _aproduce(
        self, messages: list[BaseMessage], call: _Call, *, live: bool
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Do what `_produce` does, on the event loop."""
        guidance, error, shown = None, None, ""
        if call.asks_teacher:
            streams = live and teachers.streams_usage(self.teacher)
            held = self._held_teacher(call, stream=streams)
            config = self._child("teacher", call)
            try:
                if streams:
                    whole: Any = None
                    async with aclosing(held.astream(messages, config, stop=call.stop)) as chunks:  # type: ignore[type-var]
                        async for chunk in chunks:
                            whole = chunk if whole is None else whole + chunk
                            if new := self._showable(str(whole.text), call)[len(shown) :]:
                                shown += new
                                yield _text(new)
                else:
                    whole = await self._ask_async(held, messages, config, call)
                guidance = self._read(whole, call, shown)
            except Exception as caught:  # noqa: BLE001  whatever a provider raises
                error = caught
        fallback = self._after_teacher(error, call)
        if guidance and (new := guidance.text[len(shown) :]):
            yield _text(new)
        student: Any = None
        if todo := self._student_call(messages, guidance, call):
            config = self._child("student", call)
            if live:
                async with aclosing(self.student.astream(todo[0], config, **todo[1])) as chunks:
                    async for chunk in chunks:
                        student = chunk if student is None else student + chunk
                        if chunk.text:
                            yield _text(str(chunk.text))
            else:
                student = await self.student.ainvoke(todo[0], config, **todo[1])
                if student.text:
                    yield _text(str(student.text))
        yield self._last_chunk(call, guidance, student, fallback)

    async def _ask_async(
        self,
        held: Runnable[Any, Any],
        messages: list[BaseMessage],
        config: RunnableConfig,
        call: _Call,
    ) -> Any:
        if teachers.has_async(self.teacher):
            return await held.ainvoke(messages, config, stop=call.stop)
        return await run_in_executor(None, held.invoke, messages, config, stop=call.stop)

    def _guide_call(
        self, messages: LanguageModelInput, config: RunnableConfig | None
    ) -> tuple[_Call, list[BaseMessage], RunnableConfig]:
        call = self._settings(None, None, {})
        if not call.asks_teacher:
            raise ValueError(
                "guide() asks the teacher; use mode='guided' and guidance_tokens of 1 or more"
            )
        merged = merge_configs(config, self._child("teacher", call))
        return call, self._convert_input(messages).to_messages(), merged

    def _showable(self, written: str, call: _Call) -> str:
        """Return what of a growing guidance can be shown: its last word may be cut away."""
        return call.policy.trim(written) if call.mode == "guided" else written

    # --- BaseChatModel ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._settings(stop, run_manager or self._run, kwargs)
        return _result(list(self._produce(messages, call, live=False)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._settings(stop, run_manager or self._run, kwargs)
        return _result([chunk async for chunk in self._aproduce(messages, call, live=False)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._settings(stop, run_manager or self._run, kwargs)
        self._producer = self._produce(messages, call, live=True)
        yield from self._producer

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._settings(stop, run_manager or self._run, kwargs)
        self._producer = self._aproduce(messages, call, live=True)
        async for chunk in self._producer:
            yield chunk

    def _for_one_call(self, run: BaseRunManager | None) -> GuidedKnowledgeTransferChain:
        """Return a copy that remembers the run it serves; it shares both models."""
        copy = self.model_copy()
        copy._run = run
        return copy

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream an answer: the guidance word by word, then the student's tokens.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config.
            stop: Strings that end the answer.
            **kwargs: Call-time ``guidance_tokens``, ``guidance``, ``mode``, ``max_tokens`` or
                ``temperature``.

        Yields:
            Message chunks; their joined text is the answer ``invoke`` gives.
        """
        config, run = open_run(config, asynchronous=False)
        one = self._for_one_call(run)
        try:
            with closing(BaseChatModel.stream(one, input, config, stop=stop, **kwargs)) as it:  # type: ignore[type-var]
                yield from it
        finally:
            if one._producer is not None:
                one._producer.close()  # ends the children's runs now, not when collected

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream an answer asynchronously; see `stream`.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config.
            stop: Strings that end the answer.
            **kwargs: As for `stream`.

        Yields:
            Message chunks; their joined text is the answer ``ainvoke`` gives.
        """
        config, run = open_run(config, asynchronous=True)
        one = self._for_one_call(run)
        try:
            chunks = BaseChatModel.astream(one, input, config, stop=stop, **kwargs)
            async with aclosing(chunks) as it:  # type: ignore[type-var]
                async for chunk in it:
                    yield chunk
        finally:
            if one._producer is not None:
                await one._producer.aclose()

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        one = self._for_one_call(run_manager)
        return BaseChatModel._generate_with_cache(one, messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        one = self._for_one_call(run_manager)
        return await BaseChatModel._agenerate_with_cache(one, messages, stop, run_manager, **kwargs)

    # --- guidance alone ---

    def guide(self, messages: LanguageModelInput, config: RunnableConfig | None = None) -> Guidance:
        """Ask the teacher for guidance and nothing else.

        Args:
            messages: A prompt, messages or a prompt value.
            config: Runnable config; the teacher's run is a run of its own here.

        Returns:
            The guidance the student would continue.

        Raises:
            ValueError: If the chain asks no teacher (mode ``student``, or 0 tokens).
            TeacherError: If the teacher fails or writes nothing.
        """
        call, prompt, config = self._guide_call(messages, config)
        try:
            message = self._held_teacher(call, stream=False).invoke(prompt, config, stop=call.stop)
            return self._read(message, call)
        except Exception as error:  # noqa: BLE001  whatever a provider raises
            raise _teacher_error(error) from error

    async def aguide(
        self, messages: LanguageModelInput, config: RunnableConfig | None = None
    ) -> Guidance:
        """Ask the teacher for guidance asynchronously; see `guide`.

        Args:
            messages: A prompt, messages or a prompt value.
            config: Runnable config.

        Returns:
            The guidance the student would continue.
        """
        call, prompt, config = self._guide_call(messages, config)
        try:
            held = self._held_teacher(call, stream=False)
            message = await self._ask_async(held, prompt, config, call)
            return self._read(message, call)
        except Exception as error:  # noqa: BLE001  whatever a provider raises
            raise _teacher_error(error) from error


def _text(text: str) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


def _result(chunks: list[ChatGenerationChunk]) -> ChatResult:
    """Join the chunks of a call into one message."""
    last = chunks[-1].message
    message = AIMessage(
        content="".join(chunk.text for chunk in chunks),
        usage_metadata=last.usage_metadata if isinstance(last, AIMessage) else None,
        response_metadata=last.response_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def _teacher_error(error: Exception) -> TeacherError:
    """Say what failed, and what can be done about it."""
    if isinstance(error, TeacherError):
        return error
    return TeacherError(
        f"the teacher's call failed: {type(error).__name__}: {error} Check that teacher is "
        "reachable and its key valid, wrap it with with_retry() or with_fallbacks(), or set "
        "on_teacher_error='student' to go on without guidance."
    )
