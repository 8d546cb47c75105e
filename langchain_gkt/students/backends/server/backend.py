"""A model behind a server as a student's engine, for all kinds of servers.

Templates, control tokens, seams, stop strings, schemas and truncation stay with the student. The
server receives token ids and returns token ids.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal

import httpx

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.server.answer import AnswerWriter, all_replies
from langchain_gkt.students.backends.server.checks import (
    checked_model,
    load_tokenizer,
    served_models,
)
from langchain_gkt.students.backends.server.connection import Connection
from langchain_gkt.students.backends.server.dialects import Ask, Replies, Reply, dialect_of
from langchain_gkt.students.backends.server.loop import LoopThread
from langchain_gkt.students.backends.server.samples import may_share, shared_replies
from langchain_gkt.students.backends.server.sessions import Sessions
from langchain_gkt.students.backends.source import ModelSource
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.delivery import Deliver, areceive, receive
from langchain_gkt.students.engine.failures import CLOSED, as_student_error
from langchain_gkt.students.engine.prefill_handle import PREFILL_DELAY_SECONDS, PrefillHandle
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.detokenizer import Detokenizer
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.engine.token_healing import Healing, TokenSpelling
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail, sample_group

_log = logging.getLogger(__name__)

_FRESH_SECONDS = 10.0
"""A server that answered this recently is not asked whether it is there."""


class ServerBackend:
    """A model that a server runs. Made only if the server is there and fits the tokenizer."""

    unsupported: Mapping[Any, str] = MappingProxyType({})
    first_token_detail: FirstTokenDetail = "probabilities"
    repeatable: Literal["never"] = "never"
    """The batch and prefix cache of a server change the last digits."""

    def __init__(
        self, name: str, source: ModelSource, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Load the tokenizer and check the server.

        Raises:
            FileNotFoundError: If there is no tokenizer.
            ConfigurationError: If the key is wrong, or the server has another model.
            StudentError: If the server cannot be reached, or lacks a needed feature.
        """
        self.name, self._source = name, source
        self.tokenizer, self.end_ids = load_tokenizer(source)
        dialect = dialect_of(name, partial(_encode, self.tokenizer))
        self._connection = Connection(source, dialect, transport)
        self._sessions = Sessions(self.end_ids)
        self._thread = LoopThread(self._connection.aclose)
        self._pid, self.closed = os.getpid(), False
        self._tasks: dict[Future[None], asyncio.AbstractEventLoop] = {}
        self._prefills: list[_Ahead] = []
        self._answered = -math.inf
        try:
            checked = checked_model(self._connection, self.tokenizer, source)
            context, self._blocks = self._thread.run(checked)
        except BaseException:
            self.close()
            raise
        self._answered = time.monotonic()
        self.window = ContextWindow(context)

    def __deepcopy__(self, memo: dict[int, Any]) -> ServerBackend:
        """Share the connections: copies of a student differ in settings alone."""
        return self

    @property
    def description(self) -> str:
        """What runs the model, for people."""
        return f"{self.name} at {self._connection.root}, model {self._connection.model}"

    @cached_property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(max(self.tokenizer.get_vocab().values())) + 1

    @cached_property
    def spelling(self) -> TokenSpelling:
        """The bytes of each token, read from the vocabulary at first use."""
        return TokenSpelling(self.tokenizer, self.vocabulary)

    @cached_property
    def _marks(self) -> list[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        return [token.content for token in added if token.content.strip()]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the address, the model's name there and the tokenizer, not of the weights."""
        identity = f"{self.description} {self.tokenizer.backend_tokenizer.to_str()}"
        return hashlib.sha256(identity.encode()).hexdigest()

    def refuse_unreachable(self) -> None:
        """Refuse if the server cannot be reached now, or has another model than before."""
        if time.monotonic() - self._answered < _FRESH_SECONDS:
            return
        self._refuse_lost_thread()
        models = self._thread.run(served_models(self._connection, self._source))
        if self._connection.model not in models:
            raise StudentError(
                f"the server at base_url={self._connection.root!r} no longer has the model "
                f"{self._connection.model!r} (it has {', '.join(models)}); make a new student"
            )
        self._answered = time.monotonic()

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Fill the server's prefix cache. The request with the same prompt waits for it.

        If the server has recently read a prompt's whole blocks, the prompt is left to its request.
        """
        fits = bool(prompt) and (self.window.size is None or len(prompt) < self.window.size)
        wanted = fits and self._source.config.prefix_cache_bytes > 0 and not self.closed
        if self._blocks is not None and self._blocks.holds(prompt):
            wanted = False
        if not wanted:
            return PrefillHandle(prompt, useless=True)
        self._refuse_lost_thread()
        ahead = _Ahead(prompt)
        ahead.future = self._thread.submit(self._read_ahead(ahead))
        self._prefills.append(ahead)
        ahead.future.add_done_callback(lambda _: self._finish_ahead(ahead))
        _ = self.spelling  # there is time now, and a begun answer will need it
        return ahead

    def generate(
        self, request: Request, cancelled: threading.Event, *, stream: bool = True
    ) -> Generator[TokenChunk, None, None]:
        """Generate one answer. See `Backend.generate`."""
        if not cancelled.is_set():
            self._refuse_lost_thread()
            loop = self._thread.loop
            yield from receive(partial(self._submit, request, cancelled, stream, loop))

    async def agenerate(
        self, request: Request, *, stream: bool = True
    ) -> AsyncGenerator[TokenChunk, None]:
        """Do what `generate` does, on the event loop and without a thread."""
        loop = asyncio.get_running_loop()
        submit = partial(self._submit, request, threading.Event(), stream, loop)
        async with aclosing(areceive(submit)) as chunks:
            async for chunk in chunks:
                yield chunk

    def first_tokens(self, request: Request) -> list[FirstToken]:
        """Return how likely each token of an answer was. Their entropy is unknown."""
        self._refuse_lost_thread()
        return self._thread.run(self.afirst_tokens(request))

    async def afirst_tokens(self, request: Request) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        self._refuse(request)
        await self._await_prefill(request.prompt)
        ask = Ask(
            ids=[*request.prompt, *request.answer_prefix],
            max_tokens=request.max_tokens,
            end_ids=sorted(self.end_ids),
            log_probs=True,
        )
        replies = await all_replies(self._replies(request.prompt), ask, self._source.max_retries)
        return [token for reply in replies for token in self._first_tokens_of(reply)]

    def _first_tokens_of(self, reply: Reply) -> Iterator[FirstToken]:
        # A stream may leave out the id of a token that only begins a character.
        ids = reply.ids if len(reply.ids) == len(reply.log_probs) else [None] * len(reply.log_probs)
        for token, log_prob in zip(ids, reply.log_probs, strict=True):
            text = None if token is None else self.tokenizer.decode([token])
            yield FirstToken(min(1.0, math.exp(log_prob)), text=text)

    def close(self) -> None:
        """End the thread and drop running requests. They get a StudentError."""
        if self.closed or os.getpid() != self._pid:
            return
        self.closed = True
        for answer, loop in [*self._tasks.items()]:
            _cancel(answer, loop)
        self._thread.close()

    def _refuse_lost_thread(self) -> None:
        """A forked child has neither the thread nor the right to the connections."""
        if os.getpid() != self._pid:
            raise StudentError(
                f"a student with backend={self.name!r} cannot work in a forked process; make "
                "children with the start method 'spawn', or make the student in the child"
            )

    def _refuse(self, request: Request) -> None:
        self._refuse_lost_thread()
        if self.closed:
            raise StudentError("the student is closed; make a new one")
        self.window.refuse_request(request)

    def _submit(
        self,
        request: Request,
        cancelled: threading.Event,
        stream: bool,
        loop: asyncio.AbstractEventLoop,
        deliver: Deliver,
    ) -> Callable[[], None]:
        """Check a request and start it on an event loop. Return what cancels it."""
        self._refuse(request)
        if request.max_tokens < 1:
            deliver(TokenChunk(text="", tokens=0, finish_reason="length"))
            return cancelled.set
        state = RequestState(
            request=request,
            ids=[*request.prompt, *request.kept],
            deliver=deliver,
            cancelled=cancelled,
            detokenizer=Detokenizer(self.tokenizer.backend_tokenizer, request),
            stream=stream,
            healing=Healing(self.spelling, request.seam) if request.seam else None,
        )
        answer = asyncio.run_coroutine_threadsafe(self._answer(state), loop)
        self._tasks[answer] = loop
        answer.add_done_callback(self._tasks.pop)

        def cancel() -> None:
            state.close()
            _cancel(answer, loop)

        return cancel

    async def _answer(self, state: RequestState) -> None:
        try:
            await self._await_prefill(state.request.prompt)
            replies = self._replies(state.request.prompt)
            # The caller's group: a coroutine runs in the context of whoever submits it.
            if (group := sample_group()) is not None and may_share(state.request):
                replies = shared_replies(group, replies)
            writer = AnswerWriter(
                state,
                self.spelling if state.request.seam else None,
                self.end_ids,
                replies=replies,
                marks=self._marks,
                dialect=self._connection.dialect,
                retries=self._source.max_retries,
            )
            await writer.write()
            if state.is_cancelled:
                state.deliver(None)
            self._note_read(state.request.prompt)
        except asyncio.CancelledError:
            state.deliver(StudentError(CLOSED) if self.closed else None)
            raise
        except BaseException as error:  # noqa: BLE001  a constraint may raise anything, or panic
            self._note_lost()
            state.deliver(as_student_error(error))

    def _replies(self, prompt: list[int]) -> Replies:
        """Return what sends the requests of one prompt. A router keeps a conversation together."""
        return partial(self._connection.replies, session=self._sessions.key_of(prompt))

    async def _read_ahead(self, ahead: _Ahead) -> None:
        await asyncio.sleep(PREFILL_DELAY_SECONDS)
        ahead.begun = True
        if ahead.claimed.is_set():
            return
        prompt = ahead.ids
        ids = prompt if self._blocks is None else self._blocks.worth_reading(prompt)
        try:
            await all_replies(self._replies(prompt), Ask(ids=ids, max_tokens=1))
            self._note_read(prompt)
        except StudentError as error:  # its request will raise it again
            self._note_lost()
            _log.debug("a prompt could not be prefilled ahead: %s", error)

    def _note_read(self, prompt: list[int]) -> None:
        self._answered = time.monotonic()
        if self._blocks is not None:
            self._blocks.add(prompt)

    def _note_lost(self) -> None:
        """Forget the cache of a server that may be gone."""
        self._answered = -math.inf
        if self._blocks is not None:
            self._blocks.clear()

    def _finish_ahead(self, ahead: _Ahead) -> None:
        self._prefills.remove(ahead)
        ahead.finish()

    async def _await_prefill(self, prompt: list[int]) -> None:
        """Wait while the server prefills a prompt. One not begun is left to its request."""
        for ahead in [prefill for prefill in self._prefills if prefill.ids == prompt]:
            ahead.claimed.set()
            if not ahead.begun:
                ahead.future.cancel()
                continue
            await asyncio.wait([asyncio.shield(asyncio.wrap_future(ahead.future))])


class _Ahead(PrefillHandle):
    """A prompt that is prefilled ahead of its request, by a request of its own."""

    future: Future[None]
    begun = False

    def close(self) -> None:
        if not self.claimed.is_set():
            self.future.cancel()


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _cancel(answer: Future[None], loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():  # closing it ended its tasks
        answer.cancel()
