"""HuggingFaceStudent: a local Hugging Face model as a chat model that continues answers."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables.config import RunnableConfig, run_in_executor
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_gkt.chain.callbacks import wide_configs
from langchain_gkt.errors import StudentError, refuse_unknown
from langchain_gkt.structured_output.schema import schema_in, with_instruction
from langchain_gkt.students.abilities import ToolsAndSchemas
from langchain_gkt.students.conversion import STUDENT_VARIABLE
from langchain_gkt.students.engine.engine import Engine, EngineConfig, Prefill, Request, TokenChunk
from langchain_gkt.students.loading import LOADING, taken
from langchain_gkt.students.prompting import PromptBuilder, is_begun

if TYPE_CHECKING:
    from langchain_gkt.structured_output.grammar import Vocabulary

_SAMPLING = ("max_tokens", "temperature", "top_p", "seed")
_CALL_ARGUMENTS = (*_SAMPLING, "tools", "tool_choice", "response_format")


class HuggingFaceStudent(ToolsAndSchemas):
    """A local Hugging Face model that continues answers.

    A trailing AIMessage is the beginning of the model's own answer; only what follows is
    returned. Decoder-only and encoder-decoder models work, with a chat template or without
    (then the last message is the prompt as written, and several become Q/A text).

    Example:
        >>> student = HuggingFaceStudent(model="path/or/repo-id")  # doctest: +SKIP
        >>> student.invoke([("human", "2 + 3?"), ("ai", "The sum is")])  # doctest: +SKIP

    Raises:
        FileNotFoundError: If the folder does not exist or holds no model or no tokenizer.
        StudentError: If the model cannot be loaded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())
    names_weights: ClassVar[bool] = True

    model: Any
    """A folder, a hub id, or a loaded transformers model (then ``tokenizer`` is needed)."""
    tokenizer: Any = Field(default=None, repr=False)
    """A tokenizer, where it is not beside the model."""
    max_tokens: int = Field(default=512, ge=0)
    """Most tokens to generate for one answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0 for greedy decoding, which is the default."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling threshold; only used with a temperature above 0."""
    seed: int | None = None
    """Seed of every call's own generator; None for a fresh one each call."""
    stop: list[str] | None = None
    """Strings that end an answer when a call names none."""
    device: str | None = None
    """Device to load the model on, such as ``cpu`` or ``cuda:0``; None for the CPU."""
    dtype: str = "auto"
    """Weights' type: ``auto`` as saved (float16 becomes float32 on a CPU), a torch name, or
    ``int8`` for a CPU, which is quicker and a little less exact."""

    max_batch_size: int = Field(default=16, ge=1)
    """Most answers that are written at the same time; more wait in order."""
    max_queue: int = Field(default=1024, ge=1)
    """Most requests that wait; one more is refused with a StudentError."""
    kv_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of KV cache, padding included; None for 2 GiB of them (at least a context)."""
    prefix_cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """Most bytes of KV cache kept of prompts for those that begin alike; 0 for none."""
    prompt_lookup: int = Field(default=0, ge=0)
    """Deprecated: has no effect any more."""

    streaming: bool | None = None
    """True has ``invoke`` hand tokens to listening handlers; False keeps ``stream`` from it."""
    on_long_prompt: Literal["raise", "truncate"] = "raise"
    """What to do with a prompt that leaves the context no room: an error, or forget the oldest
    turns, then the beginning of the oldest text. System messages and the last turn stay."""

    _engine: Engine | None = PrivateAttr(default=None)
    _prompts: PromptBuilder | None = PrivateAttr(default=None)
    _vocabulary: Vocabulary | None = PrivateAttr(default=None)
    _others: dict[str, HuggingFaceStudent] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        known = {*cls.model_fields, "callback_manager"}
        refuse_unknown(values, known, cls.__name__)
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
        if self.prompt_lookup:
            warnings.warn(
                "prompt_lookup is deprecated and has no effect any more; leave it out",
                DeprecationWarning,
                stacklevel=2,
            )
        self._load()

    @property
    def _llm_type(self) -> str:
        return "gkt-student"

    @property
    def name_for_people(self) -> str:
        """The model's folder, hub id or class."""
        if isinstance(self.model, str):
            return Path(self.model).name
        return str(getattr(self.model, "name_or_path", "") or type(self.model).__name__)

    @property
    def _identifying_params(self) -> dict[str, Any]:
        fields = (*_SAMPLING, "stop", "dtype", "on_long_prompt")
        # Neither a path nor a name says which weights are there: a cache may outlive them.
        return {
            "model": self.name_for_people,
            "weights": self._load()[0].fingerprint,
            **{name: getattr(self, name) for name in fields},
        }

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Name the weights in LangChain's cache, and not only where they lay."""
        return f"{self._identifying_params}---{sorted({**kwargs, 'stop': stop}.items())}"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "huggingface-local"
        params["ls_model_name"] = kwargs.get("model") or self.name_for_people
        return params

    def __repr_args__(self) -> Any:
        """Name the model; never its weights."""
        return [("model", self.name_for_people), ("max_tokens", self.max_tokens)]

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle the settings alone; the weights are loaded again from their path."""
        state = super().__getstate__()
        empty: dict[str, Any] = {"_vocabulary": None, "_others": {}}
        if isinstance(self.model, str):
            empty |= {"_engine": None, "_prompts": None}
        private = {**(state.get("__pydantic_private__") or {}), **empty}
        return {**state, "__pydantic_private__": private}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> HuggingFaceStudent:
        """Copy the settings; weights and tokenizer are shared."""
        memo = {} if memo is None else memo
        memo |= {id(shared): shared for shared in (self.model, self.tokenizer)}
        return super().__deepcopy__(memo)

    def _load(self) -> tuple[Engine, PromptBuilder]:
        if self._engine is not None and self._prompts is not None:
            return self._engine, self._prompts
        with LOADING:
            if self._engine is not None and self._prompts is not None:
                return self._engine, self._prompts
            model, tokenizer = taken(self.model, self.tokenizer, self.device, self.dtype)
            config = EngineConfig(
                max_batch_size=self.max_batch_size,
                max_queue=self.max_queue,
                kv_tokens=self.kv_tokens,
                prefix_cache_bytes=self.prefix_cache_bytes,
            )
            self._prompts = PromptBuilder(tokenizer)
            self._engine = Engine(model, tokenizer, config)
        return self._engine, self._prompts

    # --- one call ---

    def check(
        self,
        messages: list[BaseMessage],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        response_format: dict[str, Any] | None = None,
        reserve: int = 0,
    ) -> int:
        """Refuse a conversation that the model cannot answer, without running it.

        Args:
            messages: The conversation.
            tools: Tools in OpenAI's form.
            response_format: The form the answer must have, if any.
            reserve: Tokens that another will write of the answer's beginning.

        Returns:
            Tokens that the shortest answer of that form takes; 0 without a form.

        Raises:
            ValueError: If it is empty, leaves the context no room, or holds more than text.
        """
        if response_format:
            messages = with_instruction(messages, schema_in(response_format))
        self._fitting(messages, tools, self.max_tokens, reserve)
        if not response_format:
            return 0
        from langchain_gkt.structured_output.grammar import json_grammar, shortest_answer

        return shortest_answer(self._load_vocabulary(), json_grammar(schema_in(response_format)))

    def prefill(
        self,
        messages: list[BaseMessage],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Prefill:
        """Prefill a prompt while the beginning of its answer is still being written.

        Args:
            messages: The conversation, without the beginning of the answer.
            tools: Tools in OpenAI's form.
            response_format: The form the answer must have, if any.

        Returns:
            A context manager; leaving it frees what no call with this prompt has taken over.
        """
        if response_format:
            messages = with_instruction(messages, schema_in(response_format))
        prompt, _ = self._fitting(messages, tools, self.max_tokens)
        return self._load()[0].prefill(prompt)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer several inputs together, see `Runnable.batch`.

        Unless ``max_concurrency`` says otherwise there are as many threads as fill the batch;
        the usual number depends on the machine's cores, and would leave most of it empty.
        """
        most = min(2 * self.max_batch_size, self.max_queue)
        configs = wide_configs(config, len(inputs), most)
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Do what `batch` does, on the event loop; no more wait than the queue holds."""
        configs = wide_configs(config, len(inputs), self.max_queue)
        return await super().abatch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def close(self) -> None:
        """End the student's thread and free its KV cache; later calls are refused.

        Copies share the thread, and are closed too; so are students that calls named by
        ``model``.
        """
        if self._engine is not None:
            self._engine.close()
        for other in list(self._others.values()):
            other.close()

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise a text with the model's own tokenizer.

        Args:
            text: The text.

        Returns:
            Its ids, without special tokens.
        """
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return list(self._load()[1].tokenizer(text, add_special_tokens=False)["input_ids"])

    def _for_call(self, kwargs: dict[str, Any]) -> HuggingFaceStudent:
        """Return the student a call names with ``model``: this one, or another, kept loaded."""
        name = kwargs.pop("model", None)
        if name is None or str(name) == self.model:
            return self
        if name not in self._others:
            with LOADING:
                if name not in self._others and not self._is_closed():
                    # The settings are this one's; tokenizer and weights are the other's.
                    given = {field: getattr(self, field) for field in self.model_fields_set}
                    self._others[name] = type(self)(**{**given, "model": name, "tokenizer": None})
        if self._is_closed():  # perhaps while the other was loaded, where close() missed it
            self.close()
            raise StudentError("the student is closed; make a new one")
        return self._others[name]

    def _is_closed(self) -> bool:
        return self._engine is not None and self._engine.closed

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Engine, Request]:
        refuse_unknown(kwargs, _CALL_ARGUMENTS, f"a call of {type(self).__name__}")
        engine, prompts = self._load()
        given: dict[str, Any] = {
            name: getattr(self, name, None) if kwargs.get(name) is None else kwargs[name]
            for name in _CALL_ARGUMENTS
        }
        if given["response_format"]:
            messages = with_instruction(messages, schema_in(given["response_format"]))
        tools = given["tools"] if given["tool_choice"] != "none" else None
        prompt, prefill = self._fitting(messages, tools, given["max_tokens"])
        room = given["max_tokens"]
        if engine.context is not None:
            room = min(room, engine.context - engine.used(prompt, prefill))
        constraint = None
        if grammar := self._grammar(given):
            begun = str(messages[-1].text).lstrip() if is_begun(messages[-1]) else ""
            constraint = self._constraint(grammar, begun=begun, max_tokens=room)
            room = constraint.max_tokens
        request = Request(
            prompt=prompt,
            prefill=prefill,
            # A grammar says where its text ends, and stop strings never cut a tool call.
            stop=()
            if constraint or tools
            else tuple(stop if stop is not None else self.stop or ()),
            constraint=constraint,
            keep_special=bool(tools and getattr(prompts.tokenizer, "response_template", None)),
            **{**{name: given[name] for name in _SAMPLING}, "max_tokens": room},
        )
        return engine, request

    def _fitting(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any]] | None,
        max_tokens: int,
        reserve: int = 0,
    ) -> tuple[list[int], list[int]]:
        """Tokenise messages, shortened if they do not fit and the user wants that."""
        engine, prompts = self._load()
        prompt, prefill = prompts.build(messages, tools)
        if engine.context is not None and self.on_long_prompt == "truncate":
            most = engine.context - min(max_tokens, engine.context // 4)
            if engine.is_encoder_decoder:  # the encoder's context is the prompt's alone
                most = engine.context + len(prefill)
            if len(prompt) + len(prefill) > most:
                prompt, prefill = prompts.shortened(messages, tools, most)
            reserve = 0
        engine.refuse_long(prompt, prefill, reserve)
        return prompt, prefill

    def _prepared(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Engine, Request, Callable[[TokenChunk], ChatGenerationChunk]]:
        one, tools = self._for_call(kwargs), kwargs.get("tools")
        if kwargs.get("tool_choice") == "none":
            tools = None
        engine, request = one._request(messages, stop, kwargs)
        stops = tuple(stop if stop is not None else one.stop or ())
        return engine, request, one._readers(request, stops, tools)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        engine, request, chunk = self._prepared(messages, stop, kwargs)
        with closing(engine.generate(request, threading.Event())) as pieces:
            for piece in pieces:
                made = chunk(piece)
                yield made
                if _is_last(made):
                    return

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if kwargs.get("tools"):  # its text may end before the model does
            return generate_from_stream(self._stream(messages, stop, **kwargs))
        engine, request, chunk = self._prepared(messages, stop, kwargs)
        pieces = engine.generate(request, threading.Event(), stream=False)
        return generate_from_stream(map(chunk, pieces))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        engine, request, chunk = await run_in_executor(None, self._prepared, messages, stop, kwargs)
        async with aclosing(engine.agenerate(request)) as pieces:
            async for piece in pieces:
                made = chunk(piece)
                yield made
                if _is_last(made):
                    return

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if kwargs.get("tools"):
            return await agenerate_from_stream(self._astream(messages, stop, **kwargs))
        engine, request, chunk = await run_in_executor(None, self._prepared, messages, stop, kwargs)
        pieces = engine.agenerate(request, stream=False)
        return await agenerate_from_stream(chunk(piece) async for piece in pieces)


def _is_last(chunk: ChatGenerationChunk) -> bool:
    return "finish_reason" in chunk.message.response_metadata
