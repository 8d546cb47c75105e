"""HuggingFaceStudent: a local Hugging Face model as a chat model that continues answers."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables.config import RunnableConfig, run_in_executor
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_gkt.errors import StudentError, refuse_unknown
from langchain_gkt.students.engine import Engine, Limits, Piece, Prefill, Request
from langchain_gkt.students.int8 import quantize
from langchain_gkt.students.prompt import PromptBuilder

_CALL_ARGUMENTS = ("max_tokens", "temperature", "top_p", "seed")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


class HuggingFaceStudent(BaseChatModel):
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
    """Most tokens guessed from the text so far while one greedy answer is written alone; about
    8 where answers copy from their prompt, 0 for none."""

    _engine: Engine | None = PrivateAttr(default=None)
    _prompts: PromptBuilder | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        known = {*cls.model_fields, "callback_manager"}
        refuse_unknown(values, known, cls.__name__)
        return values

    def model_post_init(self, context: Any, /) -> None:
        """Load the model, so that a wrong path fails here and not at the first question."""
        super().model_post_init(context)
        self._load()

    @property
    def _llm_type(self) -> str:
        return "gkt-student"

    @property
    def name_for_people(self) -> str:
        """The model's folder, hub id or class."""
        if isinstance(self.model, str | Path):
            return Path(self.model).name
        return str(getattr(self.model, "name_or_path", "") or type(self.model).__name__)

    @property
    def _identifying_params(self) -> dict[str, Any]:
        fields = ("max_tokens", "temperature", "top_p", "seed", "stop", "dtype")
        # Two models loaded by the user may share a name: their identity tells them apart.
        which = str(self.model) if isinstance(self.model, str | Path) else id(self.model)
        return {"model": which, **{name: getattr(self, name) for name in fields}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "huggingface-local"
        params["ls_model_name"] = self.name_for_people
        return params

    def __repr_args__(self) -> Any:
        """Name the model; never its weights."""
        return [("model", self.name_for_people), ("max_tokens", self.max_tokens)]

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle the settings alone; the weights are loaded again from their path."""
        state = super().__getstate__()
        if not isinstance(self.model, str | Path):
            return state
        private = dict(state.get("__pydantic_private__") or {}, _engine=None, _prompts=None)
        return {**state, "__pydantic_private__": private}

    def _load(self) -> tuple[Engine, PromptBuilder]:
        if self._engine is None or self._prompts is None:
            if isinstance(self.model, str | Path):
                model, tokenizer = _from_path(
                    str(self.model), self.tokenizer, self.device, self.dtype
                )
            else:
                if self.dtype == "int8":
                    raise ValueError("dtype='int8' needs model= to be a folder or a hub id")
                model, tokenizer = self.model, self.tokenizer
                if tokenizer is None:
                    raise ValueError("student needs tokenizer= beside a loaded model")
            limits = Limits(
                max_batch_size=self.max_batch_size,
                max_queue=self.max_queue,
                kv_tokens=self.kv_tokens,
                prefix_cache_bytes=self.prefix_cache_bytes,
                prompt_lookup=self.prompt_lookup,
            )
            self._engine, self._prompts = Engine(model, tokenizer, limits), PromptBuilder(tokenizer)
        return self._engine, self._prompts

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
        wide = {"max_concurrency": max(1, min(len(inputs), 2 * self.max_batch_size))}
        configs = config if isinstance(config, list) else [config or {}] * len(inputs)
        return super().batch(
            inputs,
            [cast("RunnableConfig", {**wide, **one}) for one in configs],
            return_exceptions=return_exceptions,
            **kwargs,
        )

    def close(self) -> None:
        """End the student's thread and free its KV cache; later calls are refused.

        Copies share the thread, and are closed too.
        """
        if self._engine is not None:
            self._engine.close()

    def prefill(self, messages: list[BaseMessage]) -> Prefill:
        """Prefill a prompt while the beginning of its answer is still being written.

        Args:
            messages: The conversation, without the beginning of the answer.

        Returns:
            A context manager; leaving it frees what no call with this prompt has taken over.
        """
        engine, prompts = self._load()
        return engine.prefill(prompts.build(messages)[0])

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Engine, Request]:
        refuse_unknown(kwargs, _CALL_ARGUMENTS, f"a call of {type(self).__name__}")
        engine, prompts = self._load()
        given = {
            name: getattr(self, name) if kwargs.get(name) is None else kwargs[name]
            for name in _CALL_ARGUMENTS
        }
        prompt, prefill = prompts.build(messages)
        room = given["max_tokens"]
        if engine.context is not None and not engine.is_encoder_decoder:
            used = len(prompt) + len(prefill)
            if used >= engine.context:
                raise ValueError(
                    f"messages make a prompt of {used} tokens, but the student's context holds "
                    f"{engine.context}; shorten the messages or use a student with more context"
                )
            room = min(room, engine.context - used)
        endings = tuple(stop if stop is not None else self.stop or ())
        request = Request(
            prompt=prompt, prefill=prefill, stop=endings, **{**given, "max_tokens": room}
        )
        return engine, request

    def _chunk(self, piece: Piece, request: Request) -> ChatGenerationChunk:
        if piece.finish_reason is None:
            return ChatGenerationChunk(message=AIMessageChunk(content=piece.text))
        prompt_tokens = len(request.prompt) + len(request.prefill)
        usage = UsageMetadata(
            input_tokens=prompt_tokens,
            output_tokens=piece.tokens,
            total_tokens=prompt_tokens + piece.tokens,
        )
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=piece.text,
                usage_metadata=usage,
                response_metadata={
                    "finish_reason": piece.finish_reason,
                    "model_name": self.name_for_people,
                    "model_provider": "huggingface-local",
                },
                chunk_position="last",
            )
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        engine, request = self._request(messages, stop, kwargs)
        for piece in engine.generate(request, threading.Event()):
            yield self._chunk(piece, request)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        engine, request = self._request(messages, stop, kwargs)
        pieces = engine.generate(request, threading.Event(), whole=True)
        return generate_from_stream(self._chunk(piece, request) for piece in pieces)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        engine, request = await run_in_executor(None, self._request, messages, stop, kwargs)
        async with aclosing(engine.agenerate(request)) as pieces:
            async for piece in pieces:
                yield self._chunk(piece, request)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        engine, request = await run_in_executor(None, self._request, messages, stop, kwargs)
        pieces = engine.agenerate(request, whole=True)
        return await agenerate_from_stream(self._chunk(piece, request) async for piece in pieces)


def _from_path(path: str, tokenizer: Any, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a folder or a hub id."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    if dtype == "int8" and torch.device(device or "cpu").type != "cpu":
        raise ValueError(f"dtype='int8' runs on a CPU, not on device={device!r}; use 'bfloat16'")
    folder = Path(path).expanduser()
    if not folder.is_dir() and (not _HUB_ID.fullmatch(path) or folder.exists()):
        raise FileNotFoundError(f"student={path!r} is not a folder, nor a hub id (owner/name)")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"student={path!r} holds no config.json, so no model")
        if tokenizer is None and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise FileNotFoundError(
                f"student={path!r} holds no tokenizer (tokenizer.json); save one there with "
                "tokenizer.save_pretrained(folder)"
            )
    source = str(folder) if folder.is_dir() else path
    try:
        config = AutoConfig.from_pretrained(source)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(source) if tokenizer is None else tokenizer
        saved = "float32" if dtype == "int8" else dtype
        model: Any = kind.from_pretrained(source, dtype=saved)
    except (OSError, ValueError) as error:
        raise StudentError(
            f"student={path!r} could not be loaded ({error}); give a folder made by "
            "save_pretrained, or a hub id that is reachable or in the local cache"
        ) from error
    model = model.to(device or "cpu")
    if dtype == "int8":
        model = quantize(model)
    if dtype == "auto" and model.dtype == torch.float16 and model.device.type == "cpu":
        model = model.float()  # CPUs compute float16 slowly
    return model, tokenizer
