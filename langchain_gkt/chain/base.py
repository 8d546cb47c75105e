"""GuidedKnowledgeTransferChain: a big teacher begins each answer, a small student finishes it."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast, get_args

from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, PrivateAttr

from langchain_gkt._langchain_compat import copy_model, to_messages
from langchain_gkt.chain.bound import BoundChain, tool_binding
from langchain_gkt.chain.callbacks.handlers import hide_usage, prepare_run
from langchain_gkt.chain.drivers import CallSteps, run_async, run_sync
from langchain_gkt.chain.fields import ChainFields, can_be_enforced
from langchain_gkt.chain.identity import (
    answer_key,
    known_identity,
    pair_profile,
    traced_params,
    without_bookkeeping,
)
from langchain_gkt.chain.messages import join_chunks
from langchain_gkt.chain.reliability.deadline import Deadline
from langchain_gkt.chain.reliability.owned_stream import OwnedStream
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.teacher_step import TeacherStep
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.chain.tool import answering_tool
from langchain_gkt.errors import ConfigurationError, any_of, refuse_unknown, wrap_errors
from langchain_gkt.guidance import Guidance
from langchain_gkt.pickling import dump_state
from langchain_gkt.structured_output.schema import Method, bind_schema
from langchain_gkt.structured_output.tools import AnyTool, ToolChoice
from langchain_gkt.students.protocol import Student, student_of
from langchain_gkt.teachers.settings import require_tools
from langchain_gkt.teachers.wrappers import is_configurable, models_of, resolve


class GuidedKnowledgeTransferChain(ChainFields):
    """A chat model whose answers a teacher begins and a local student finishes.

    The teacher writes at most ``guidance_tokens`` tokens. The student reads the conversation with
    that guidance as the beginning of its own answer and writes the rest (Yao, Li & Zhao, "GKT",
    Findings of ACL 2024, section 3). No fine-tuning, no shared vocabulary.
    ``message.response_metadata["gkt"]`` of an answer is a `langchain_gkt.metadata.GKTMetadata`.

    Examples:
        >>> chain = GuidedKnowledgeTransferChain(  # doctest: +SKIP
        ...     teacher=ChatOpenAI(model="gpt-4o-mini"),
        ...     student="path/or/repo-id",
        ...     guidance_tokens=40,
        ... )
        >>> chain.invoke("Q: ...").text  # doctest: +SKIP

    Raises:
        TypeError: If an argument is unknown, or a model is of no known kind.
        ValueError: If a value makes no sense.
    """

    _known_teacher: tuple[Any, str] | None = PrivateAttr(default=None)
    _run: BaseRunManager | None = PrivateAttr(default=None)  # of the copy that serves one call
    _chunks: Any = PrivateAttr(default=None)  # of that copy, too: those in production
    _warned: set[str] = PrivateAttr(default_factory=set)

    def model_post_init(self, context: Any, /) -> None:
        """Note the identity of the teacher before it changes with use."""
        super().model_post_init(context)
        self._known_teacher = known_identity(self._known_teacher, self.teacher)

    @property
    def _llm_type(self) -> str:
        return "langchain-gkt"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return traced_params(self)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        self._known_teacher = known_identity(self._known_teacher, self.teacher)
        return answer_key(self, self._known_teacher[1], stop, kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        own = {"ls_provider": self._llm_type, "ls_model_name": kwargs.get("model", self._llm_type)}
        return {**super()._get_ls_params(stop=stop, **kwargs), **own}

    def _resolve_model_profile(self) -> Any:
        return pair_profile(self)

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle without clients and locks of the teacher, which are made anew."""
        return dump_state(super().__getstate__(), empty=("_run", "_chunks", "_known_teacher"))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> GuidedKnowledgeTransferChain:
        """Copy the settings. Clients, locks and weights are shared."""
        memo = {} if memo is None else memo
        memo[id(self.teacher)] = self.teacher
        if not isinstance(self.student, Student):  # another client
            memo[id(self.student)] = self.student
        return cast(GuidedKnowledgeTransferChain, super().__deepcopy__(memo))

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise a text with the student's tokenizer, in mode ``teacher`` with the teacher's."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        if not strategy_of(self.mode).asks_student:
            return next(models_of(resolve(self.teacher, None))).get_token_ids(text)
        return self.loaded_student.get_token_ids(text)

    def _for_config(self, config: RunnableConfig | None) -> GuidedKnowledgeTransferChain:
        """Return the chain with the teacher that a config selects."""
        if not is_configurable(self.teacher):
            return self
        return self.model_copy(update={"teacher": resolve(self.teacher, config)})

    def _for_run(self, run: BaseRunManager | None) -> GuidedKnowledgeTransferChain:
        """Return a copy that serves one call and knows its run."""
        copy: GuidedKnowledgeTransferChain = copy_model(self, {})
        copy._run = run
        return copy

    def _for_streaming(
        self, config: RunnableConfig | None, arguments: dict[str, Any], *, asynchronous: bool
    ) -> tuple[RunnableConfig, GuidedKnowledgeTransferChain]:
        config, run = prepare_run(config, self.callbacks, arguments, asynchronous=asynchronous)
        return config, self._for_config(config)._for_run(run)

    def _settings(self, stop: list[str] | None, run: Any, arguments: Any) -> CallSettings:
        with wrap_errors(ConfigurationError, "the call's settings cannot be used"):
            return CallSettings.of(self, stop, run or self._run, arguments, self._warned)

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        with wrap_errors(ConfigurationError, "the prompt cannot be read"):
            return super()._convert_input(model_input)

    def _call(
        self, messages: list[BaseMessage], stop: Any, run: Any, arguments: Any, *, streaming: bool
    ) -> tuple[CallSteps, Deadline | None]:
        """Return what a driver needs to run a call."""
        settings = self._settings(stop, run, arguments)
        return settings.strategy.call(settings, messages, streaming=streaming), settings.deadline

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        call = self._call(messages, stop, run_manager, kwargs, streaming=False)
        return join_chunks(list(run_sync(*call)))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        call = self._call(messages, stop, run_manager, kwargs, streaming=False)
        return join_chunks([chunk async for chunk in run_async(*call)])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        self._chunks = run_sync(*self._call(messages, stop, run_manager, kwargs, streaming=True))
        yield from self._chunks

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._chunks = run_async(*self._call(messages, stop, run_manager, kwargs, streaming=True))
        async for chunk in self._chunks:
            yield chunk

    # Entry points: each gives the child runs their parent. See `callbacks`.
    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Answer a prompt.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config. ``configurable`` reaches a configurable teacher.
            **kwargs: ``stop``, ``guidance_tokens``, ``guidance``, ``teacher_prompt``, ``mode``,
                ``max_tokens``, ``temperature``, ``timeout`` and ``model``, which is the teacher's
                for one call.

        Raises:
            TeacherError: If the teacher fails and ``on_teacher_error`` is ``raise``.
            StudentError: If the student cannot continue and ``on_student_error`` is ``raise``.
            ConfigurationError: If an argument makes no sense, or the messages cannot be read.
        """
        return BaseChatModel.invoke(self._for_config(config), input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> AIMessage:
        """Do what `invoke` does, on the event loop."""
        return await BaseChatModel.ainvoke(self._for_config(config), input, config, **kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Stream an answer: the guidance word by word, then the student's tokens.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config.
            **kwargs: As for `invoke`.

        Yields:
            Message chunks. Their joined text is the answer that ``invoke`` gives.
        """
        config, chain = self._for_streaming(config, kwargs, asynchronous=False)
        try:
            yield from BaseChatModel.stream(chain, input, config, **kwargs)
        finally:
            if chain._chunks is not None:
                chain._chunks.close()  # ends the children's runs now, not at garbage collection

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Do what `stream` does, on the event loop."""
        config, chain = self._for_streaming(config, kwargs, asynchronous=True)
        chunks: Any = OwnedStream(BaseChatModel.astream(chain, input, config, **kwargs))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if chain._chunks is not None:
                await OwnedStream(chain._chunks).aclose()  # the children's runs end before it
            await chunks.aclose()

    def _chat_model_stream_v3(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        config, chain = self._for_streaming(config, kwargs, asynchronous=False)
        return BaseChatModel._chat_model_stream_v3(chain, input, config, **kwargs)

    async def _achat_model_stream_v3(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        config, chain = self._for_streaming(config, kwargs, asynchronous=True)
        return await BaseChatModel._achat_model_stream_v3(chain, input, config, **kwargs)

    def _generate_with_cache(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        chain = self._for_run(hide_usage(kwargs.get("run_manager"), kwargs))
        messages = without_bookkeeping(messages)
        return BaseChatModel._generate_with_cache(chain, messages, *args, **kwargs)

    async def _agenerate_with_cache(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        chain = self._for_run(hide_usage(kwargs.get("run_manager"), kwargs))
        messages = without_bookkeeping(messages)
        return await BaseChatModel._agenerate_with_cache(chain, messages, *args, **kwargs)

    def bind_tools(
        self, tools: Sequence[AnyTool], *, tool_choice: ToolChoice | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the teacher call tools. Answers in text are guided as usual.

        A tool call is the teacher's own, whole and unchanged. A tool call truncated by the guidance
        limit is requested again without the limit. If a tool must be called, there is no limit from
        the start. A student whose chat template knows tools gets them, too, and may call them when
        it finishes an answer.

        Args:
            tools: Tools in any form LangChain knows. Calls of a ``BaseTool`` with
                ``metadata={"gkt_tools": "teacher"}`` are always the teacher's.
            tool_choice: As for the teacher's ``bind_tools``.
            **kwargs: Further arguments of the teacher's ``bind_tools``, or of each call. Make
                ``guidance_tokens`` large enough for a whole tool call and the words before it.

        Returns:
            The chain with the tools bound.

        Raises:
            NotImplementedError: If the teacher takes no tools.
            ValueError: If a tool's mark is unknown.
        """
        if tools and strategy_of(self.mode).asks_teacher and not is_configurable(self.teacher):
            require_tools(self.teacher)
        return self.bind(**tool_binding(tools, tool_choice, kwargs))

    def bind(self, **kwargs: Any) -> BoundChain:  # type: ignore[override]
        """Bind arguments of each call. You can still bind tools and schemas afterwards."""
        return BoundChain(bound=self, kwargs=kwargs, config={})

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with an object of a schema.

        Args:
            schema: A pydantic class, a TypedDict class or a JSON schema.
            include_raw: Whether to return ``raw``, ``parsed`` and ``parsing_error``.
            method: ``json_schema`` (or ``json_mode``, which is the same here): the teacher begins
                the JSON object, and the student finishes it with decoding constrained to the
                schema. ``function_calling``: the teacher alone writes it, as a tool call. None
                takes the first, unless llguidance (extra ``structured``) is missing, the student is
                not a `HuggingFaceStudent`, or the schema cannot be enforced.
            strict: Accepted for compatibility. The student always keeps to the schema.
            **kwargs: Further arguments of each call.

        Returns:
            A runnable giving objects of the schema.

        Raises:
            ImportError: If ``method`` needs llguidance and it is missing.
            ValueError: If the schema cannot be enforced.
            TypeError: If ``method`` needs a `HuggingFaceStudent` and there is none.
        """
        student = self.loaded_student
        if method not in (None, *get_args(Method)):
            raise ValueError(f"method must be {any_of(get_args(Method))}, not {method!r}")
        enforces = student_of(student).enforces_schema
        if method is None:
            able = enforces and importlib.util.find_spec("llguidance")
            method = "json_schema" if able and can_be_enforced(schema) else "function_calling"
        if method == "function_calling":
            # The arguments are fields, too. The method of langchain-core takes none for its calls.
            refuse_unknown(kwargs, type(self).model_fields, "with_structured_output")
            changed = self.model_copy(update=kwargs) if kwargs else self
            return BaseChatModel.with_structured_output(changed, schema, include_raw=include_raw)
        if not enforces:
            raise TypeError(
                f"method={method!r} needs a HuggingFaceStudent, which can be held to a schema; "
                f"with a {type(student).__name__} use method='function_calling'"
            )
        return bind_schema(self, schema, method=method, include_raw=include_raw, **kwargs)

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """Make a tool that answers questions, for an agent. It returns text.

        Args:
            args_schema: Arguments of the tool. None for a single one, ``question``. The value of a
                single argument is the prompt. Several are written as ``name: value`` lines.
            name: The tool's name. None for ``answer``.
            description: The description for the calling model.
            arg_types: Names and types of the arguments, in place of ``args_schema``.

        Returns:
            The tool. Its runs have the chain's run as their child.
        """
        return answering_tool(
            self, args_schema, name=name, description=description, arg_types=arg_types
        )

    def guide(self, messages: LanguageModelInput, config: RunnableConfig | None = None) -> Guidance:
        """Ask the teacher for guidance only.

        Args:
            messages: A prompt, messages or a prompt value.
            config: Runnable config. The teacher's run has no parent of the chain's.

        Returns:
            The guidance that the student would continue.

        Raises:
            ValueError: If the chain asks no teacher (mode ``student``, or 0 tokens).
            TeacherError: If the teacher fails or writes nothing.
        """
        step = TeacherStep(self._for_config(config)._settings(None, None, {}))
        return step.guide(to_messages(self, messages), config)

    async def aguide(
        self, messages: LanguageModelInput, config: RunnableConfig | None = None
    ) -> Guidance:
        """Do what `guide` does, on the event loop."""
        step = TeacherStep(self._for_config(config)._settings(None, None, {}))
        return await step.aguide(to_messages(self, messages), config)
