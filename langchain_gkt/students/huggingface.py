"""HuggingFaceStudent: a local Hugging Face model as a chat model that continues answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import RunnableConfig, run_in_executor
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_gkt.errors import ConfigurationError, StudentError, refuse_unknown, wrap_errors
from langchain_gkt.structured_output.schema import Method, bind_schema
from langchain_gkt.structured_output.tools import AnyTool, ToolChoice, in_openai_form
from langchain_gkt.students.backends.protocol import Backend, PrefillHandle, RemoteBackend
from langchain_gkt.students.backends.source import ModelSource
from langchain_gkt.students.batching import InterruptibleChatModel, with_max_concurrency
from langchain_gkt.students.engine_fields import EngineFields
from langchain_gkt.students.generation import Generation
from langchain_gkt.students.loading import StudentLoader
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail, Student
from langchain_gkt.students.settings import (
    SAMPLING,
    STUDENT_VARIABLE,
    GenerationSettings,
    OnLongPrompt,
    TemplateKwargs,
)
from langchain_gkt.students.tokenization.control_tokens import AllowedTokens

_ANSWER_FIELDS = (*SAMPLING, "stop", "dtype", "on_long_prompt")
_LATER_FIELDS = ("allowed_added_tokens", "chat_template_kwargs")


class HuggingFaceStudent(Student, EngineFields, InterruptibleChatModel):
    """A local Hugging Face model that continues answers.

    A trailing AIMessage is the beginning of the model's own answer. Only what follows is returned.
    Decoder-only and encoder-decoder models work, with or without a chat template. Without one, a
    single message is the prompt as written, and several become Q/A text.

    Examples:
        >>> student = HuggingFaceStudent(model="path/or/repo-id")  # doctest: +SKIP
        >>> student.invoke([("human", "2 + 3?"), ("ai", "The sum is")])  # doctest: +SKIP

    Raises:
        FileNotFoundError: If the folder does not exist or holds no model or no tokenizer.
        StudentError: If the model cannot be loaded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())
    model: Any
    """A folder, a hub id, a ``.gguf`` file (``owner/repo:file.gguf`` on the hub), or a loaded
    transformers model (then ``tokenizer`` is needed). A folder may hold a PEFT adapter."""
    tokenizer: Any = Field(default=None, repr=False)
    """A tokenizer, if it is not beside the model."""
    max_tokens: int = Field(default=512, ge=0)
    """Maximum tokens to generate for one answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0 for greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling threshold. Only used with a temperature above 0."""
    seed: int | None = None
    """Seed of every call's own generator. None for a fresh one each call."""
    stop: list[str] | None = None
    """Strings that end an answer when a call names none."""
    streaming: bool | None = None
    """True makes ``invoke`` pass tokens to listening handlers. False keeps ``stream`` from it."""
    on_long_prompt: OnLongPrompt = "raise"
    """What to do with a prompt that is too long: raise an error, or drop the oldest turns, then the
    beginning of the oldest text. System messages and the last turn stay.
    """
    allowed_added_tokens: AllowedTokens = ()
    """Added tokens, such as ``<think>``, that messages may hold as tokens too, or ``all``."""
    chat_template_kwargs: TemplateKwargs = Field(default_factory=dict)
    """Further arguments of the chat template, such as ``{"enable_thinking": False}``. A call can
    add its own. Reasoning is always off after guidance and in a probe.
    """
    trust_remote_code: bool = False
    """Whether to run a model's own Python files. Only for a model whose files you have read."""

    _loader: StudentLoader = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        refuse_unknown(values, {*cls.model_fields, "callback_manager"}, cls.__name__)
        model = values.get("model", os.environ.get(STUDENT_VARIABLE))
        if model is None:
            raise ValueError(
                "model is missing: give a folder, a hub id or a loaded model, or set the "
                f"environment variable {STUDENT_VARIABLE}"
            )
        return {**values, "model": str(model) if isinstance(model, Path) else model}

    def model_post_init(self, context: Any, /) -> None:
        """Load the model, so that a wrong path fails here and not at the first question."""
        super().model_post_init(context)
        self._loader = StudentLoader(ModelSource.of(self))
        self.backend = self._loader.choice.name
        self._loader.load()

    @property
    def _llm_type(self) -> str:
        return "gkt-student"

    @property
    def display_name(self) -> str:
        """The model's folder, hub id or class."""
        if isinstance(self.model, str):
            return Path(self.model).name
        return str(getattr(self.model, "name_or_path", "") or type(self.model).__name__)

    @property
    def backend_reason(self) -> str:
        """What runs the model and why, such as ``torch 2.13, bfloat16, cpu: the model ...``."""
        return f"{self._engine.description}: {self._loader.choice.reason}"

    @property
    def repeatable(self) -> str:
        """When you can rely on equal greedy answers: ``always``, asked ``alone``, or ``never``."""
        return self._engine.repeatable

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self.display_name,
            "weights": self._engine.fingerprint,
            **{name: getattr(self, name) for name in _ANSWER_FIELDS},
            # Named only if set, so that run folders from before these fields can be continued.
            **{name: value for name in _LATER_FIELDS if (value := getattr(self, name))},
        }

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Name the weights themselves in LangChain's cache, not only their path."""
        return f"{self._identifying_params}---{sorted({**kwargs, 'stop': stop}.items())}"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        name = kwargs.get("model") or self.display_name
        params = super()._get_ls_params(stop=stop, **kwargs)
        return {**params, "ls_provider": "huggingface-local", "ls_model_name": name}

    def _convert_input(self, model_input: Any) -> Any:
        with wrap_errors(ConfigurationError, "the prompt cannot be read"):
            return super()._convert_input(model_input)

    def _resolve_model_profile(self) -> Any:
        return self._loader.load().profile(self.max_tokens)

    def __repr_args__(self) -> Any:
        """Show the model's name, never its weights."""
        return [("model", self.display_name), ("max_tokens", self.max_tokens)]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> HuggingFaceStudent:
        """Copy the settings. Weights and tokenizer are shared."""
        memo = {} if memo is None else memo
        memo |= {id(shared): shared for shared in (self.model, self.tokenizer)}
        return cast(HuggingFaceStudent, super().__deepcopy__(memo))

    @property
    def _engine(self) -> Backend:
        return self._loader.load().engine

    def close(self) -> None:
        """End the student's thread and free its KV cache. Later calls are refused.

        This also closes its copies, and students named by calls.
        """
        self._loader.close()

    def check(self, messages: list[BaseMessage], *, reserve: int = 0, **arguments: Any) -> int:
        """Refuse a conversation that the model cannot answer. See `Student.check`.

        The other arguments are those of the call, such as ``tools`` or ``chat_template_kwargs``.
        """
        settings = GenerationSettings.of_call(self, **arguments)
        return self._loader.load().check(messages, settings, reserve=reserve)

    def prefill(self, messages: list[BaseMessage], **arguments: Any) -> PrefillHandle:
        """Prefill a prompt ahead of its request. The arguments are those of `check`."""
        settings = GenerationSettings.of_call(self, **arguments)
        prompt = self._loader.load().tokenize(messages, settings, direct=True)
        return self._engine.prefill(prompt.ids)

    def probe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Return only the probabilities of `first_tokens`."""
        return [token.probability for token in self.first_tokens(messages, tokens=tokens)]

    async def aprobe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Do what `probe` does, on the event loop."""
        return [token.probability for token in await self.afirst_tokens(messages, tokens=tokens)]

    def first_tokens(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[FirstToken]:
        """Return how sure the model is of its first tokens. See `Student.first_tokens`."""
        return self._engine.first_tokens(self._loader.load().build_probe(self, messages, tokens))

    async def afirst_tokens(
        self, messages: list[BaseMessage], *, tokens: int = 1
    ) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        build = self._loader.load().build_probe
        request = await run_in_executor(None, build, self, messages, tokens)
        return await self._engine.afirst_tokens(request)

    def turn_arguments(self, tools: Any, tool_choice: Any = None) -> dict[str, Any]:
        """Return the arguments of a turn, whose calls are constrained to their tools' schemas."""
        return {**super().turn_arguments(tools, tool_choice), "hold_calls": True}

    def sample_arguments(self, index: int) -> dict[str, Any]:
        """Return a separate seed for each of several samples, if the student has one."""
        return {} if self.seed is None else {"seed": self.seed + index}

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise a text with the model's own tokenizer, without special tokens."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        tokenizer = self._loader.load().prompts.tokenizer
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def first_token_detail(self) -> FirstTokenDetail:
        """What the engine reports of first tokens."""
        return self._engine.first_token_detail

    @property
    def continues_whitespace(self) -> bool:
        """Whether text that ends in whitespace is continued well. It may become another token."""
        return self._engine.spelling.is_known

    @property
    def names_weights(self) -> bool:
        """Whether the cache key holds a digest of the weights, which no server reports."""
        return not isinstance(self._engine, RemoteBackend)

    @property
    def filters_reasoning(self) -> bool:
        """Always, because the model's own tags are known."""
        return True

    @property
    def enforces_schema(self) -> bool:
        """Always, because forbidden tokens are never written."""
        return True

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template has a place for tools."""
        return self._loader.load().prompts.knows_tools

    def bind_tools(
        self,
        tools: Sequence[AnyTool],
        *,
        tool_choice: ToolChoice | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools, in the format of its chat template.

        Args:
            tools: Tools in any form LangChain knows.
            tool_choice: ``auto``, ``none``, ``any`` (or ``required``, True), or a tool's name. A
                required call is constrained to its tool's schema (extra ``structured``).
            strict: Accepted for compatibility. ``tool_choice`` decides.
            **kwargs: Further arguments of each call.

        Returns:
            The model with the tools bound.

        Raises:
            NotImplementedError: If the chat template has no place for tools.
        """
        if not self.knows_tools:
            raise NotImplementedError(
                f"the chat template of student {self.display_name!r} has no place for tools; use a "
                "model that was trained to call them, or leave the calls to the teacher"
            )
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[in_openai_form(tool) for tool in tools], **chosen, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with an object of a schema. Decoding is constrained to it, token by token.

        Args:
            schema: A pydantic class, a TypedDict class or a JSON schema.
            include_raw: Whether to return ``raw``, ``parsed`` and ``parsing_error``.
            method: ``json_schema`` or ``json_mode``, which are the same here, or
                ``function_calling``, for a template that knows tools.
            strict: Accepted for compatibility. The answer always keeps to the schema.
            **kwargs: Further arguments of each call.

        Returns:
            A runnable giving objects of the schema.

        Raises:
            ImportError: If llguidance (extra ``structured``) is missing.
            ValueError: If the schema cannot be enforced.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        return bind_schema(self, schema, method=method, include_raw=include_raw, **kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer several inputs together, in as many threads as fill the engine's batch.

        A config's ``max_concurrency`` takes precedence over this number.
        """
        limit = min(2 * self.max_batch_size, self.max_queue)
        configs = with_max_concurrency(config, len(inputs), limit)
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Do what `batch` does, on the event loop. Never have more wait than the queue holds."""
        configs = with_max_concurrency(config, len(inputs), self.max_queue)
        return await super().abatch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def _generation(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Generation:
        with wrap_errors(StudentError, "the student could not read the prompt"):
            name, student = kwargs.pop("model", None), self
            if name is not None and str(name) != self.model:
                student = self._loader.other(name, self)
            settings = GenerationSettings.of_call(student, stop, **kwargs)
            return student._loader.load().generation(messages, settings, student.display_name)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield from self._generation(messages, stop, kwargs).stream()

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self._generation(messages, stop, kwargs).result()

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        generation = await run_in_executor(None, self._generation, messages, stop, kwargs)
        async with aclosing(generation.astream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        generation = await run_in_executor(None, self._generation, messages, stop, kwargs)
        return await generation.aresult()
