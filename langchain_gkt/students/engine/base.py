"""What the engines that run a model in this process share: how a request is sent and waited for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property, partial
from threading import Event
from types import MappingProxyType
from typing import Any

from typing_extensions import Self

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.delivery import Deliver, areceive, receive
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.detokenizer import Detokenizer
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.engine.sampling import TokenProbabilityRecorder
from langchain_gkt.students.engine.token_healing import Healing, TokenSpelling
from langchain_gkt.students.protocol import FirstToken


class LocalEngine(ABC):
    """A loaded model that answers on threads of its own. `Backend` describes the methods."""

    unsupported: Mapping[Any, str] = MappingProxyType({})
    window: ContextWindow
    vocabulary: int  # length of the model's logits, padding included
    _state_type: type[RequestState] = RequestState

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer.

        Raises:
            StudentError: If it is not a fast one.
        """
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise StudentError(
                f"the student's tokenizer ({type(tokenizer).__name__}) is not a fast one; load it "
                "with AutoTokenizer, or convert it to a tokenizer.json"
            )
        self.tokenizer = tokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Share the weights: copies of a student differ in settings alone."""
        return self

    @cached_property
    def spelling(self) -> TokenSpelling:
        """The bytes of each token, read from the vocabulary at first use (in up to a second)."""
        return TokenSpelling(self.tokenizer, self.vocabulary)

    def generate(
        self, request: Request, cancelled: Event, *, stream: bool = True
    ) -> Generator[TokenChunk, None, None]:
        """Generate one answer, token by token. It is faster without ``stream``."""
        if not cancelled.is_set():
            started = Event()
            yield from receive(partial(self._submit, request, cancelled, started, stream), started)

    async def agenerate(
        self, request: Request, *, stream: bool = True
    ) -> AsyncGenerator[TokenChunk, None]:
        """Do what `generate` does, on the event loop and without a thread per request."""
        started = Event()
        submit = partial(self._submit, request, Event(), started, stream)
        async with aclosing(areceive(submit, started)) as chunks:
            async for chunk in chunks:
                yield chunk

    def first_tokens(self, request: Request) -> list[FirstToken]:
        """Return how likely each token of an answer was."""
        recorder = TokenProbabilityRecorder()
        for _ in self.generate(_recorded(request, recorder), Event(), stream=False):
            pass
        return self._with_texts(recorder)

    async def afirst_tokens(self, request: Request) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        recorder = TokenProbabilityRecorder()
        async for _ in self.agenerate(_recorded(request, recorder), stream=False):
            pass
        return self._with_texts(recorder)

    def _with_texts(self, recorder: TokenProbabilityRecorder) -> list[FirstToken]:
        chosen = zip(recorder.tokens, recorder.ids, strict=True)
        return [
            token if token.text is not None else token._replace(text=self.tokenizer.decode([one]))
            for token, one in chosen
        ]

    def _submit(
        self,
        request: Request,
        cancelled: Event,
        started: Event,
        stream: bool,
        deliver: Deliver,
    ) -> Callable[[], None]:
        """Check a request and send it. Return what cancels it."""
        self.window.refuse_request(request)
        state = self._state_type(
            request=request,
            ids=[*request.prompt, *request.kept],
            deliver=deliver,
            cancelled=cancelled,
            started=started,
            detokenizer=Detokenizer(self.tokenizer.backend_tokenizer, request),
            stream=stream,
            healing=Healing(self.spelling, request.seam) if request.seam else None,
        )
        if request.max_tokens < 1:
            deliver(TokenChunk(text="", tokens=0, finish_reason="length"))
        else:
            self._send(state)
        return state.close

    @abstractmethod
    def _send(self, state: RequestState) -> None:
        """Queue a request."""


def _recorded(request: Request, recorder: TokenProbabilityRecorder) -> Request:
    return replace(request, constraint=recorder, stop=(), seam=None)
