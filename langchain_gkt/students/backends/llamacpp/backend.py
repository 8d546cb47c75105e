"""llama.cpp as a student's engine, run by the package xllamacpp (extra ``llamacpp``).

xllamacpp runs llama.cpp's own server inside this process, with continuous batching and a prompt
cache in every slot. Requests hold token ids, so prompts are made as for any other engine.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import math
import os
import weakref
from functools import cached_property, partial
from importlib.metadata import version
from threading import Event
from typing import Any, Literal

import xllamacpp

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.gguf import GGUFHeader
from langchain_gkt.students.backends.llamacpp.answer import (
    AnswerText,
    ConstrainedAnswer,
    Take,
    completion_request,
)
from langchain_gkt.students.backends.llamacpp.server import capacity, server_parameters
from langchain_gkt.students.backends.slots import Job, Slots
from langchain_gkt.students.engine.base import LocalEngine
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.failures import CLOSED, as_student_error
from langchain_gkt.students.engine.forks import in_forked_child, refuse_forked
from langchain_gkt.students.engine.prefill_handle import PREFILL_DELAY_SECONDS, PrefillHandle
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import TextConstraint
from langchain_gkt.students.engine.sampling import TokenProbabilityRecorder
from langchain_gkt.students.engine.vocabulary import end_ids, refuse_unknown_tokens
from langchain_gkt.students.protocol import FirstTokenDetail

_log = logging.getLogger(__name__)

_NAME = "llama.cpp"
# The process whose threads llama.cpp has started. In its forked children llama.cpp fails.
_started_in: list[int] = []


class LlamaCppBackend(LocalEngine):
    """A GGUF file that llama.cpp has loaded. This is the backend named ``llamacpp``."""

    name = "llamacpp"
    first_token_detail: FirstTokenDetail = "probabilities"
    repeatable: Literal["never"] = "never"  # a cached prompt is computed in another way

    def __init__(
        self, header: GGUFHeader, tokenizer: Any, config: EngineConfig, device: str | None
    ) -> None:
        """Load the weights, all layers to ``cuda`` (with a number, perhaps), or to the CPU.

        Raises:
            ValueError: If the device cannot be used.
            StudentError: If llama.cpp cannot load the file, or the tokenizer is not a fast one or
                has tokens that the file lacks.
        """
        for pid in _started_in:
            refuse_forked(pid, _NAME)
        super().__init__(tokenizer)
        self._header, self._device = header, device or "cpu"
        if header.vocabulary is not None:
            refuse_unknown_tokens(tokenizer, header.vocabulary)
        self.vocabulary = header.vocabulary or len(tokenizer)
        self.end_ids = end_ids(tokenizer)
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

    @property
    def description(self) -> str:
        """What runs the model, for people."""
        return f"llama.cpp (xllamacpp {version('xllamacpp')}), {self._device}"

    @property
    def closed(self) -> bool:
        """Whether requests are refused, because `close` was called."""
        return self._slots.closed

    @property
    def fingerprint(self) -> str:
        """A digest that differs between two files."""
        return self._header.fingerprint

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Prefill a prompt. The request with the same prompt waits for it and uses it."""
        closed = Event()
        ahead = PrefillHandle(prompt, lambda _: closed.set())
        self.prefills.append(ahead)
        run = partial(self._run_prefill, ahead, closed)
        try:
            refuse_forked(self._pid, _NAME)
            # With no slot to spare, prefilled ids are overwritten before their request comes.
            self._slots.submit(Job(run, lambda _: self._finish_prefill(ahead)), waits=False)
        except StudentError as error:  # the prompt's own request will raise it, if it has to
            _log.debug("a prompt could not be prefilled ahead: %s", error)
            self._finish_prefill(ahead)
        _ = self.spelling  # there is time now, and a begun answer will need it
        return ahead

    def _run_prefill(self, ahead: PrefillHandle, closed: Event) -> None:
        try:
            if not ahead.claimed.wait(PREFILL_DELAY_SECONDS) and not closed.is_set():
                body = {"prompt": ahead.ids, "n_predict": 0, "stream": True}
                self._complete({**body, "return_progress": True}, lambda _: closed.is_set())
        except Exception as error:  # noqa: BLE001  its request will say what is wrong
            _log.debug("a prompt could not be prefilled ahead: %s", error)
        finally:
            self._finish_prefill(ahead)

    def _finish_prefill(self, ahead: PrefillHandle) -> None:
        if ahead in self.prefills:
            self.prefills.remove(ahead)
        ahead.finish()

    def close(self) -> None:
        """End the threads and free the weights. Requests that still run get a StudentError."""
        if os.getpid() != self._pid:
            return  # the threads stayed with the parent
        self._slots.close()
        self._server = None

    def _send(self, state: RequestState) -> None:
        refuse_forked(self._pid, _NAME)
        # Claimed now, because the request may have to wait for a slot itself.
        claimed = [ahead for ahead in [*self.prefills] if ahead.ids == state.request.prompt]
        for ahead in claimed:
            ahead.claimed.set()

        def run() -> None:
            state.started.set()
            try:
                for ahead in claimed:
                    ahead.wait()
                self._answer(state)
                if not state.ended:
                    state.deliver(None)
            except Exception as error:  # noqa: BLE001  no request may be left waiting
                state.deliver(as_student_error(error))

        self._slots.submit(Job(run, state.deliver))

    def _answer(self, state: RequestState) -> None:
        """Have llama.cpp write an answer, unless it is cancelled meanwhile."""
        constraint, body = state.request.constraint, completion_request(state.request, self._marks)
        if isinstance(constraint, TokenProbabilityRecorder):
            self._record(body, constraint)
            state.end("", "length")
        elif isinstance(constraint, TextConstraint):
            answer = ConstrainedAnswer(state, constraint, self.spelling, self._encode)
            answer.write(body, self._complete)
        else:
            self._complete(body, AnswerText(state).read)

    def _record(self, body: dict[str, Any], recorder: TokenProbabilityRecorder) -> None:
        # All at once, because a stream leaves out tokens that make half a character.
        reply = self._server.handle_completions({**body, "stream": False, "n_probs": 1})
        _refuse_error(reply)
        for token in (reply["choices"][0]["logprobs"] or {}).get("content", ()):
            recorder.record(token["id"], math.exp(token["logprob"]), text=token["token"])

    def _complete(self, body: dict[str, Any], take: Take) -> None:
        """Have llama.cpp complete a prompt. It stops when ``take`` returns True."""
        failures: list[BaseException] = []

        def guarded(chunk: dict[str, Any]) -> bool:
            # xllamacpp drops what a callback raises.
            try:
                _refuse_error(chunk)
                if self._slots.closed:
                    raise StudentError(CLOSED)
                return take(chunk)
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


def _refuse_error(reply: dict[str, Any]) -> None:
    if "error" in reply:
        raise StudentError(f"llama.cpp refused: {reply['error'].get('message')}")


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
