"""GuidedKnowledgeTransferChain: a big teacher begins each answer, a small student finishes it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from langchain_gkt import teacher as teachers
from langchain_gkt.calls import Call, Mode
from langchain_gkt.errors import refuse_unknown
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.runs import open_run
from langchain_gkt.students import as_student

_CALL_ARGUMENTS = ("guidance_tokens", "guidance", "mode", "max_tokens", "temperature")


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
    budget: Any = Field(default=None, repr=False)
    """A `Budget` of this chain's own, or None; copies of the chain share it."""

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
        given = "guidance_tokens" in self.model_fields_set
        if asked is not None and given and asked != self.guidance_tokens:
            raise ValueError(
                f"guidance_tokens={self.guidance_tokens} and guidance.tokens={asked} disagree; "
                "give one of them"
            )
        return self

    @model_validator(mode="after")
    def _keep_budget(self) -> GuidedKnowledgeTransferChain:
        if self.budget is not None:
            from langchain_gkt.costs import CostTracker  # only a chain with a budget needs it

            keeper, given = CostTracker(budget=self.budget), self.callbacks
            if isinstance(given, BaseCallbackManager):
                self.callbacks = given.copy()
                self.callbacks.add_handler(keeper)
            else:
                self.callbacks = [*(given or []), keeper]
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
    ) -> Call:
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
        return Call(
            teacher=self.teacher,
            student=self.student,
            limit_param=self.teacher_limit_param,
            fall_back=self.on_teacher_error == "student",
            callbacks=self.callbacks,
            warned=self._warned,
            call_id=str(uuid.uuid4()),
            mode=given["mode"],
            policy=policy,
            limit=limit,
            max_tokens=most,
            temperature=given["temperature"],
            stop=stop if stop is not None else self.stop,
            parent=parent,
        )

    def _guide_call(
        self, messages: LanguageModelInput, config: RunnableConfig | None
    ) -> tuple[Call, list[BaseMessage], RunnableConfig]:
        call = self._settings(None, None, {})
        if not call.asks_teacher:
            raise ValueError(
                "guide() asks the teacher; use mode='guided' and guidance_tokens of 1 or more"
            )
        merged = merge_configs(config, call.child("teacher"))
        return call, self._convert_input(messages).to_messages(), merged

    # --- BaseChatModel ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._settings(stop, run_manager or self._run, kwargs)
        return _result(list(call.produce(messages, live=False)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._settings(stop, run_manager or self._run, kwargs)
        return _result([chunk async for chunk in call.aproduce(messages, live=False)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._settings(stop, run_manager or self._run, kwargs)
        self._producer = call.produce(messages, live=True)
        yield from self._producer

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._settings(stop, run_manager or self._run, kwargs)
        self._producer = call.aproduce(messages, live=True)
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
        chunks: Any = BaseChatModel.stream(one, input, config, stop=stop, **kwargs)
        try:
            yield from chunks
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
        chunks: Any = BaseChatModel.astream(one, input, config, stop=stop, **kwargs)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if one._producer is not None:
                await one._producer.aclose()  # the children's runs end before their parent's
            await chunks.aclose()

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
        return call.guide(prompt, config)

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
        return await call.aguide(prompt, config)


def _result(chunks: list[ChatGenerationChunk]) -> ChatResult:
    """Join the chunks of a call into one message."""
    last = chunks[-1].message
    message = AIMessage(
        content="".join(chunk.text for chunk in chunks),
        usage_metadata=last.usage_metadata if isinstance(last, AIMessage) else None,
        response_metadata=last.response_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
