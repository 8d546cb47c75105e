"""Students behind a server: chat models that continue a trailing AIMessage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable

from langchain_gkt.structured_output.tools import AnyTool
from langchain_gkt.texts.begun_answer import begun_text

if TYPE_CHECKING:
    from pathlib import Path

RemoteEngine = Literal["vllm", "sglang", "llama-server", "ollama"]
"""Servers that continue a begun answer."""

_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


def remote_student(
    chat_model: BaseChatModel, engine: RemoteEngine, *, tokenizer: str | Path | None = None
) -> BaseChatModel:
    """Make a student of a chat model whose server can continue a begun answer.

    Args:
        chat_model: The client of that server, such as ``ChatOpenAI`` with its ``base_url``, or
            ``ChatOllama``. It is not changed.
        engine: What the server is.
        tokenizer: Folder or hub id of the model's tokenizer. The server then gets token ids, and
            does all that a local student does. See `HuggingFaceStudent`. Not for ``ollama``.

    Returns:
        With a tokenizer a `HuggingFaceStudent` with the client's address, key, model and sampling.
        Else a copy of the client that asks the server to continue a trailing AIMessage, and to
        report its usage while it streams.

    Raises:
        ValueError: If the engine is unknown, or the client cannot send these fields.
        StudentError: If there is a tokenizer, and the server cannot be reached.
    """
    engines = get_args(RemoteEngine)
    if engine not in engines:
        raise ValueError(f"engine={engine!r} is unknown; take one of {', '.join(engines)}")
    if tokenizer is not None:
        return _by_token_ids(chat_model, engine, str(tokenizer))
    if engine == "ollama":  # it continues by itself, if the model's template lets it
        return chat_model.model_copy()
    fields = type(chat_model).model_fields
    if "extra_body" not in fields:
        raise ValueError(
            f"{type(chat_model).__name__} has no field extra_body, which engine={engine!r} "
            "needs; use ChatOpenAI with the server's base_url"
        )
    extra_body = getattr(chat_model, "extra_body", None) or {}
    update: dict[str, Any] = {"extra_body": {**extra_body, **_CONTINUE}}
    if "stream_usage" in fields:
        update["stream_usage"] = True
    continuing = chat_model.model_copy(update=update)
    return _WithoutEcho(chat_model=continuing) if engine == "llama-server" else continuing


# The names in HuggingFaceStudent and in ChatOpenAI.
_CLIENT_FIELDS = {
    "base_url": "openai_api_base",
    "api_key": "openai_api_key",
    "served_model_name": "model_name",
    "request_timeout": "request_timeout",
    "max_retries": "max_retries",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
}


def _by_token_ids(chat_model: BaseChatModel, engine: str, tokenizer: str) -> BaseChatModel:
    # A client that is used as it is needs no transformers, so it is imported only here.
    from langchain_gkt.students.huggingface import HuggingFaceStudent

    if engine == "ollama" or getattr(chat_model, "openai_api_base", None) is None:
        raise ValueError(
            f"tokenizer={tokenizer!r} is for ChatOpenAI with the base_url of a server that takes "
            f"token ids, not for {type(chat_model).__name__} with engine={engine!r}; leave "
            "tokenizer out"
        )
    values = {ours: getattr(chat_model, theirs, None) for ours, theirs in _CLIENT_FIELDS.items()}
    if isinstance(values["stop"], str):
        values["stop"] = [values["stop"]]
    fields = {name: value for name, value in values.items() if value is not None}
    return HuggingFaceStudent(model=tokenizer, backend=engine, **fields)


class _Echo:
    """Drops the begun answer from the front of a reply that repeats it."""

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        self._begun, self._held = begun_text(messages) or "", ""

    def drop(self, text: str, *, last: bool) -> str:
        """Take new text, and return the part that is certain to be new."""
        if not self._begun:
            return text
        self._held += text
        if not last and self._begun.startswith(self._held) and self._held != self._begun:
            return ""
        begun, self._begun = self._begun, ""
        return self._held.removeprefix(begun)


class _WithoutEcho(BaseChatModel):
    """A chat model whose replies repeat the begun answer, as those of llama-server do."""

    chat_model: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return self.chat_model._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self.chat_model._identifying_params)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self.chat_model._get_ls_params(stop=stop, **kwargs)

    def bind_tools(
        self, tools: Sequence[AnyTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools as the client does."""
        bound: Any = self.chat_model.bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return _new_part(self.chat_model._generate(messages, stop, None, **kwargs), messages)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        result = await self.chat_model._agenerate(messages, stop, None, **kwargs)
        return _new_part(result, messages)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        echo = _Echo(messages)
        for chunk in self.chat_model._stream(messages, stop, None, **kwargs):
            yield _new_chunk(chunk, echo)

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        echo = _Echo(messages)
        async for chunk in self.chat_model._astream(messages, stop, None, **kwargs):
            yield _new_chunk(chunk, echo)


def _new_part(result: ChatResult, messages: Sequence[BaseMessage]) -> ChatResult:
    for generation in result.generations:
        whole = str(generation.message.text)
        text = _Echo(messages).drop(whole, last=True)
        if text == whole:  # blocks keep their form
            continue
        generation.message = generation.message.model_copy(update={"content": text})
        generation.text = text
    return result


def _new_chunk(chunk: ChatGenerationChunk, echo: _Echo) -> ChatGenerationChunk:
    is_last = bool(chunk.message.response_metadata.get("finish_reason"))
    whole = str(chunk.message.text)
    text = echo.drop(whole, last=is_last)
    if text == whole:
        return chunk
    message = chunk.message.model_copy(update={"content": text})
    return ChatGenerationChunk(message=message, generation_info=chunk.generation_info)
