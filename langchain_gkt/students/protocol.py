"""The interface between a chain and its student. It knows neither torch nor transformers.

`student_of` turns any LangChain chat model into a `Student`, with honest defaults: it refuses
nothing early, prefills nothing ahead, and reports no token probabilities.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import RunnableConfig, run_in_executor

from langchain_gkt._langchain_compat import copy_model
from langchain_gkt.students.batching import run_batch

FirstTokenDetail = Literal["none", "probabilities", "entropies"]
"""What a student reports of the first tokens of its answer. Entropies include probabilities."""


class FirstToken(NamedTuple):
    """One of the first tokens of a student's own, greedy answer.

    Attributes:
        probability: How likely the token was.
        entropy: Entropy in nats of the distribution it was chosen from. None if unknown.
        text: The token, alone and decoded. None if unknown.
    """

    probability: float
    entropy: float | None = None
    text: str | None = None


@dataclass
class SampleGroup:
    """Several answers to one question, requested together."""

    size: int
    shared: Any = None  # the state of an engine that writes them with one request


_group: ContextVar[SampleGroup | None] = ContextVar("gkt_sample_group", default=None)


def sample_group() -> SampleGroup | None:
    """Return the group that the answer being written belongs to. None for a single one."""
    return _group.get()


@contextmanager
def _grouped(samples: int) -> Iterator[None]:
    token = _group.set(SampleGroup(samples) if samples > 1 else None)
    try:
        yield
    finally:
        _group.reset(token)


class Student:
    """A mixin for chat models that serve a chain as its student.

    A trailing AIMessage is the beginning of the student's own answer. Override what the model can
    do better than the defaults here, which hold for any chat model.
    """

    @property
    def chat_model(self) -> BaseChatModel:
        """The chat model that writes the answers: this object, unless it only wraps one."""
        if not isinstance(self, BaseChatModel):
            raise TypeError(
                f"{type(self).__name__} is no chat model; derive it from BaseChatModel too, or "
                "override chat_model"
            )
        return self

    @property
    def knows_tools(self) -> bool:
        """Whether it can call tools."""
        return type(self.chat_model).bind_tools is not BaseChatModel.bind_tools

    @property
    def continues_whitespace(self) -> bool:
        """Whether text that ends in whitespace is continued well. Many models do not do so."""
        return False

    @property
    def enforces_schema(self) -> bool:
        """Whether an answer with a ``response_format`` always keeps to its schema."""
        return False

    @property
    def filters_reasoning(self) -> bool:
        """Whether the text of its answers holds no reasoning. Else the chain looks for tags."""
        return False

    @property
    def names_weights(self) -> bool:
        """Whether LangChain's cache keeps two sets of weights apart."""
        return False

    @property
    def repeatable(self) -> str:
        """When you can rely on equal greedy answers: always, alone, never, or ``unknown``."""
        return "unknown"

    @property
    def first_token_detail(self) -> FirstTokenDetail:
        """What `first_tokens` reports."""
        return "none"

    def check(
        self,
        messages: list[BaseMessage],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | bool | dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
        reserve: int = 0,
    ) -> int:
        """Refuse a conversation that the model cannot answer, without running it.

        Args:
            messages: The conversation.
            tools: Tools in OpenAI's form.
            tool_choice: As for `bind_tools`.
            response_format: The form the answer must have, if any.
            reserve: Tokens that another model will write as the answer's beginning.

        Returns:
            Tokens that the shortest answer of that form takes. 0 if unknown.

        Raises:
            ValueError: If it is empty, too long or more than text, or its form cannot be enforced.
        """
        return 0

    def prefill(
        self,
        messages: list[BaseMessage],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> AbstractContextManager[Any]:
        """Prefill a prompt while the teacher still writes the beginning of its answer.

        The arguments are those of `check`, with the messages up to the beginning of the answer.
        Leaving the returned context frees the KV cache, unless a call with this prompt took it.
        """
        return nullcontext()

    def first_tokens(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[FirstToken]:
        """Return how sure the model is of the first tokens of its own, greedy answer.

        Args:
            messages: The conversation.
            tokens: Maximum number of tokens to write.

        Returns:
            The tokens. Fewer if the answer ends before. Their entropy is None unless
            `first_token_detail` is ``entropies``.

        Raises:
            NotImplementedError: If `first_token_detail` is ``none``.
        """
        raise NotImplementedError(
            f"a student of the kind {type(self.chat_model).__name__} does not report the "
            "probabilities of its tokens; use a HuggingFaceStudent, or a policy that does not "
            "need them (ask='always')"
        )

    async def afirst_tokens(
        self, messages: list[BaseMessage], *, tokens: int = 1
    ) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        return await run_in_executor(None, self.first_tokens, messages, tokens=tokens)

    def sample(
        self,
        messages: list[BaseMessage],
        samples: int,
        *,
        config: RunnableConfig | None = None,
        **arguments: Any,
    ) -> list[AIMessage]:
        """Answer the same question several times, side by side.

        Each answer is a run of its own. LangChain's cache is bypassed, because it would give the
        same answer each time.

        Args:
            messages: The conversation. A trailing AIMessage is the beginning of each answer.
            samples: How many answers.
            config: The config of each run.
            **arguments: Further arguments of each call, such as ``temperature``.

        Returns:
            The answers, without their beginning.
        """
        model = copy_model(self.chat_model, {"cache": False})

        def ask(index: int) -> AIMessage:
            return model.invoke(messages, config, **arguments, **self.sample_arguments(index))

        with _grouped(samples):
            return run_batch(ask, samples, samples)

    async def asample(
        self,
        messages: list[BaseMessage],
        samples: int,
        *,
        config: RunnableConfig | None = None,
        **arguments: Any,
    ) -> list[AIMessage]:
        """Do what `sample` does, on the event loop."""
        model = copy_model(self.chat_model, {"cache": False})
        calls = (
            model.ainvoke(messages, config, **arguments, **self.sample_arguments(index))
            for index in range(samples)
        )
        with _grouped(samples):
            return list(await asyncio.gather(*calls))

    def turn_arguments(
        self, tools: Sequence[dict[str, Any]], tool_choice: Any = None
    ) -> dict[str, Any]:
        """Return the arguments of calls in which the model may call tools.

        Args:
            tools: Tools in OpenAI's form.
            tool_choice: As for `bind_tools`. None to leave it out.
        """
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return dict(getattr(self.chat_model.bind_tools(tools, **chosen), "kwargs", {}))

    def sample_arguments(self, index: int) -> dict[str, Any]:
        """Return the arguments in which one of several samples differs, such as a seed.

        Args:
            index: The number of the sample, from 0 on.
        """
        return {}


class _AnyChatModel(Student):
    """A chat model that declares nothing of what a chain needs."""

    def __init__(self, chat_model: BaseChatModel) -> None:
        self._chat_model = chat_model

    @property
    def chat_model(self) -> BaseChatModel:
        return self._chat_model


def student_of(model: Any) -> Student:
    """Return a chat model as a chain's student.

    Args:
        model: Any chat model that continues a trailing AIMessage.

    Returns:
        The model itself if it is a `Student`, else a view of it with the defaults.
    """
    return model if isinstance(model, Student) else _AnyChatModel(model)
