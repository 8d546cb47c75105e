"""llama.cpp as a student's engine, run by the package xllamacpp (extra ``llamacpp``).

xllamacpp runs llama.cpp's own server inside this process, with continuous batching and a prompt
cache in every slot. Requests hold token ids, so prompts are made as for any other engine.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import logging
import math
import os
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from threading import Event
from types import MappingProxyType
from typing import Any, Literal

import xllamacpp

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.gguf import GGUFHeader
from langchain_gkt.students.backends.llamacpp.answer import AnswerText, completion_request
from langchain_gkt.students.backends.llamacpp.grammar import ConstrainedAnswer
from langchain_gkt.students.backends.llamacpp.server import capacity, server_parameters
from langchain_gkt.students.backends.slots import Job, Slots
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.delivery import Deliver, areceive, receive
from langchain_gkt.students.engine.failures import as_student_error
from langchain_gkt.students.engine.forks import in_forked_child
from langchain_gkt.students.engine.prefill_handle import PREFILL_DELAY_SECONDS, PrefillHandle
from langchain_gkt.students.engine.requests.request import Request, TextConstraint, TokenChunk
from langchain_gkt.students.engine.token_healing import TokenSpelling
from langchain_gkt.students.engine.vocabulary import refuse_unknown_tokens
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail

_log = logging.getLogger(__name__)

_CANNOT_FORK = (
    "a student run by llama.cpp cannot work in a forked process; make children with the start "
    "method 'spawn', or use backend='torch'"
)
# The process whose threads llama.cpp has started. In its forked children llama.cpp fails.
_started_in: list[int] = []


class LlamaCppBackend:
    """A GGUF file that llama.cpp has loaded. This is the backend named ``llamacpp``."""

    name = "llamacpp"
    unsupported: Mapping[Any, str] = MappingProxyType({})
    first_token_detail: FirstTokenDetail = "probabilities"

    def __init__(
        self, header: GGUFHeader, tokenizer: Any, config: EngineConfig, device: str | None
    ) -> None:
        """Load the weights.

        Args:
            header: The file.
            tokenizer: Its tokenizer, of the fast kind.
            config: How many requests and how much memory.
            device: ``cuda`` (with a number, perhaps) to run all layers there. None for the CPU.

        Raises:
            ValueError: If the device cannot be used.
            StudentError: If llama.cpp cannot load the file, or the tokenizer has tokens that the
                file lacks.
        """
        if _started_in and _started_in != [os.getpid()]:
            raise StudentError(_CANNOT_FORK)
        self._header, self.tokenizer, self._device = header, tokenizer, device or "cpu"
        if header.vocabulary is not None:
            refuse_unknown_tokens(tokenizer, header.vocabulary)
        self.end_ids = {end for end in [tokenizer.eos_token_id] if end is not None}
        rows, tokens, unified = capacity(header, config)
        self.window = ContextWindow(min(header.context or tokens, tokens))
        parameters = server_parameters(header, rows, tokens, unified, self._device, config.threads)
        _started_in[:] = [os.getpid()]
        try:
            self._server: Any = xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise StudentError(
                f"llama.cpp could not load student={header.path!r} (architecture "
                f"{header.architecture}); fetch the file again, use a newer xllamacpp, or "
                "backend='torch'"
            ) from error
        self._slots = Slots(rows, config.max_queue)
        self._pid = os.getpid()
        self.prefills: list[PrefillHandle] = []
        _open.add(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> LlamaCppBackend:
        """Share the weights: copies of a student differ in settings alone."""
        return self

    @property
    def description(self) -> str:
        """What runs the model, for people."""
        return f"llama.cpp (xllamacpp {version('xllamacpp')}), {self._device}"

    @property
    def closed(self) -> bool:
        """Whether requests are refused, because `close` was called."""
        return self._slots.closed

    @cached_property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self._header.vocabulary or len(self.tokenizer)

    @cached_property
    def spelling(self) -> TokenSpelling:
        """The bytes of each token, read from the vocabulary at first use."""
        return TokenSpelling(self.tokenizer, self.vocabulary)

    @property
    def repeatable(self) -> Literal["never"]:
        """``never``, because a cached prompt is computed in another way than a new one."""
        return "never"

    @property
    def fingerprint(self) -> str:
        """A digest that differs between two files."""
        return self._header.fingerprint

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Prefill a prompt. The request with the same prompt waits for it and uses it.

        Args:
            prompt: Ids of the conversation, with the header of the answer.

        Returns:
            A handle. Closing it stops.
        """
        closed = Event()
        ahead = PrefillHandle(prompt, lambda _: closed.set())
        self.prefills.append(ahead)
        self._run_prefill(ahead, closed)
        _ = self.spelling  # there is time now, and a begun answer will need it
        return ahead

    def generate(
        self, request: Request, cancelled: Event, *, stream: bool = True
    ) -> Generator[TokenChunk, None, None]:
        """Generate one answer. See `Backend.generate`."""
        if not cancelled.is_set():
            started = Event()
            yield from receive(partial(self._submit, request, cancelled, stream, started), started)

    async def agenerate(
        self, request: Request, *, stream: bool = True
    ) -> AsyncGenerator[TokenChunk, None]:
        """Do what `generate` does, on the event loop."""
        started = Event()
        submit = partial(self._submit, request, Event(), stream, started)
        async with aclosing(areceive(submit, started)) as chunks:
            async for chunk in chunks:
                yield chunk

    def first_tokens(self, request: Request) -> list[FirstToken]:
        """Return how likely each token of an answer was. Their entropy is unknown."""
        return self._probed(request).result()

    async def afirst_tokens(self, request: Request) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        return await asyncio.wrap_future(self._probed(request))

    def close(self) -> None:
        """End the threads and free the weights. Requests that still run get a StudentError."""
        if os.getpid() != self._pid:
            return  # the threads stayed with the parent
        self._slots.close()
        self._server = None

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise StudentError(_CANNOT_FORK)

    def _submit(
        self, request: Request, cancelled: Event, stream: bool, started: Event, deliver: Deliver
    ) -> Callable[[], None]:
        """Check a request and queue it. Return what cancels it."""
        self._check()
        self.window.refuse_request(request)
        if request.max_tokens < 1:
            deliver(TokenChunk(text="", tokens=0, finish_reason="length"))
            return cancelled.set
        closed = Event()
        claimed = self._claim(request.prompt)

        def run() -> None:
            started.set()
            try:
                for ahead in claimed:
                    ahead.wait()
                deliver(self._answer(request, stream, deliver, cancelled, closed))
            except Exception as error:  # noqa: BLE001  no request may be left waiting
                deliver(as_student_error(error))

        self._slots.submit(Job(run, deliver))
        return closed.set

    def _answer(
        self,
        request: Request,
        stream: bool,
        deliver: Deliver,
        cancelled: Event,
        closed: Event,
    ) -> TokenChunk | None:
        """Have llama.cpp write an answer. Return the last chunk, or None if it was cancelled."""
        body, last = completion_request(request, self._marks), None
        if isinstance(request.constraint, TextConstraint):
            parts: list[str] = []
            constrained = ConstrainedAnswer(
                request,
                request.constraint,
                complete=self._complete,
                spelling=self.spelling,
                encode=self._encode,
            )
            last = constrained.write(
                body,
                deliver if stream else lambda part: parts.append(part.text),
                lambda: cancelled.is_set() or closed.is_set(),
            )
            return last and replace(last, text="".join([*parts, last.text]))
        answer = AnswerText(request, stream=stream)

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal last
            if cancelled.is_set() or closed.is_set():
                return True
            part = answer.read(chunk)
            if part is not None and part.finish_reason is None:
                deliver(part)
            elif part is not None:
                last = part
            return last is not None

        self._complete(body, take)
        return last

    def _complete(
        self, body: dict[str, Any], take: Callable[[dict[str, Any]], bool] | None = None
    ) -> None:
        """Have llama.cpp complete a prompt. It stops when ``take`` returns True."""
        failures: list[BaseException] = []

        def guarded(chunk: dict[str, Any]) -> bool:
            # xllamacpp drops what a callback raises.
            try:
                if "error" in chunk:
                    raise StudentError(f"llama.cpp refused: {chunk['error'].get('message')}")
                if self._slots.closed:
                    raise StudentError("the student was closed before the answer was finished")
                return take is not None and take(chunk)
            except BaseException as error:  # noqa: BLE001  raised again below
                failures.append(error)
                return True

        self._server.handle_completions(body, guarded)
        if failures:
            raise failures[0]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _marks(self) -> list[tuple[int, str]]:
        added = self.tokenizer.added_tokens_decoder
        return [(token, mark.content) for token, mark in added.items() if mark.content.strip()]

    def _probed(self, request: Request) -> Future[list[FirstToken]]:
        self._check()
        self.window.refuse_request(request)
        first_tokens: Future[list[FirstToken]] = Future()
        claimed = self._claim(request.prompt)

        def run() -> None:
            try:
                for ahead in claimed:
                    ahead.wait()
                first_tokens.set_result(self._probabilities(request))
            except Exception as error:  # noqa: BLE001  no request may be left waiting
                first_tokens.set_exception(as_student_error(error))

        self._slots.submit(Job(run, first_tokens.set_exception))
        return first_tokens

    def _probabilities(self, request: Request) -> list[FirstToken]:
        likely: list[FirstToken] = []
        body = completion_request(replace(request, seam=None), self._marks)
        # All at once, because a stream leaves out tokens that make half a character.
        reply = self._server.handle_completions({**body, "stream": False, "n_probs": 1})
        if "error" in reply:
            raise StudentError(f"llama.cpp refused: {reply['error'].get('message')}")
        for token in (reply["choices"][0]["logprobs"] or {}).get("content", ()):
            likely.append(FirstToken(math.exp(token["logprob"]), text=token["token"]))
        return likely

    def _claim(self, prompt: list[int]) -> list[PrefillHandle]:
        """Claim what is prefilled for a request, which may have to wait for a slot itself."""
        claimed = [ahead for ahead in [*self.prefills] if ahead.ids == prompt]
        for ahead in claimed:
            ahead.claimed.set()
        return claimed

    def _run_prefill(self, ahead: PrefillHandle, closed: Event) -> None:
        def run() -> None:
            try:
                if not ahead.claimed.wait(PREFILL_DELAY_SECONDS) and not closed.is_set():
                    body = {"prompt": ahead.ids, "n_predict": 0, "stream": True}
                    self._complete({**body, "return_progress": True}, lambda _: closed.is_set())
            except Exception as error:  # noqa: BLE001  its request will say what is wrong
                _log.debug("a prompt could not be prefilled ahead: %s", error)
            finally:
                self._finish_prefill(ahead)

        try:
            self._check()
            # With no slot to spare, prefilled ids are overwritten before their request comes.
            self._slots.submit(Job(run, lambda _: self._finish_prefill(ahead)), waits=False)
        except StudentError as error:  # the prompt's own request will raise it, if it has to
            _log.debug("a prompt could not be prefilled ahead: %s", error)
            self._finish_prefill(ahead)

    def _finish_prefill(self, ahead: PrefillHandle) -> None:
        if ahead in self.prefills:
            self.prefills.remove(ahead)
        ahead.finish()


_open: weakref.WeakSet[LlamaCppBackend] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Stop llama.cpp before the interpreter exits. Its threads call back into Python."""
    for backend in list(_open):
        backend.close()


@in_forked_child
def _keep_in_child() -> None:
    """Keep the parent's servers in a forked child. Freeing one would wait for lost threads."""
    for backend in list(_open):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend._server))
