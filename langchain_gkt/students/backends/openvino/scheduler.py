"""The thread that drives OpenVINO's ContinuousBatchingPipeline, step by step.

Requests join its batch between two steps. Regular expressions replace masked logits for the seam to
a begun answer and for constraints. See `regex`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino_genai

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.openvino.regex import (
    ANY,
    beginnings_pattern,
    literal,
    words_pattern,
)
from langchain_gkt.students.backends.openvino.state import (
    BLOCK,
    SEEDS,
    OpenVINOState,
    block_numbers,
)
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.failures import CLOSED, FORBIDDEN, as_student_error
from langchain_gkt.students.engine.prefill_handle import PREFILL_DELAY_SECONDS, PrefillHandle
from langchain_gkt.students.engine.request_queue import RequestQueue
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import TextConstraint
from langchain_gkt.students.engine.token_healing import TokenSpelling

_MOST_KNOWN = 2**16
# A step keeps the interpreter's lock. Other threads have to get it between two steps.
_GATHER_SECONDS = 0.005


class OpenVINOScheduler:
    """Admits requests to a pipeline and reads their tokens.

    `prefill_ahead`, `close` and the queue are for any thread. All else belongs to the queue's own.
    """

    def __init__(
        self,
        open_pipeline: Callable[[], Any],
        config: EngineConfig,
        end_ids: set[int],
        spelling: Callable[[], TokenSpelling],
    ) -> None:
        """Open the pipeline, without starting a thread."""
        self._open, self._config, self._end_ids = open_pipeline, config, end_ids
        self._spelling, self._pipeline = spelling, open_pipeline()
        self._running: list[OpenVINOState] = []
        self._ahead: tuple[PrefillHandle, Any] | None = None
        self._ahead_blocks: list[int] = []
        self._known: set[int] = set()  # blocks that OpenVINO has computed
        self._requests = 0
        self.queue = RequestQueue(config.max_queue, self._serve)

    def prefill_ahead(self, ids: list[int], *, fits: bool) -> PrefillHandle:
        """Queue a prompt whose request will come later, if it ``fits`` the context."""
        # To read what is known would take a step all the same.
        wanted = fits and self._keeps_blocks and not self._known.issuperset(block_numbers(ids))
        due = time.monotonic() + PREFILL_DELAY_SECONDS
        ahead = PrefillHandle(ids, self.queue.discard_ahead, due=due, useless=not wanted)
        if wanted:
            self.queue.submit_ahead(ahead)
        return ahead

    @property
    def _keeps_blocks(self) -> bool:
        return self._config.prefix_cache_bytes > 0

    def close(self) -> None:
        """End the thread and free the weights. Requests that still run get a StudentError."""
        self.queue.close()
        self._ahead, self._pipeline = None, None

    def _serve(self) -> None:
        while self._wait_for_work():
            try:
                self._run_step()
            except BaseException as error:  # noqa: BLE001  the pipeline cannot be trusted any more
                states, self._running, self._ahead = [*self._running], [], None
                if self._pipeline is None:  # it could not be opened again, for whoever waits
                    states += self._remove_waiting()
                self._pipeline = None
                for state in states:
                    state.deliver(as_student_error(error))

    def _remove_waiting(self) -> list[OpenVINOState]:
        with self.queue.lock:
            waiting: list[Any] = [*self.queue.waiting]
            self.queue.waiting.clear()
            for ahead in self.queue.ahead:
                ahead.finish()
        return waiting

    def _wait_for_work(self) -> bool:
        with self.queue.lock:
            busy = bool(self._running or self._ahead)
            if self.queue.wait_for_work(busy=busy):
                return True
            running, self._running = self._running, []
            waiting = self._remove_waiting()
        for state in running:
            self._release(state)
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None
        if self._pipeline is not None and self._pipeline.has_non_finished_requests():
            self._pipeline.step()  # it drops cancelled requests, so that it can be freed
        for state in [*running, *waiting]:
            state.deliver(StudentError(CLOSED))
        return False

    def _run_step(self) -> None:
        if self._pipeline is None:
            self._pipeline = self._open()
            self._known.clear()
        self._remove_cancelled()
        self._end_ahead()
        while self._admit() + self._begin_ahead():
            time.sleep(_GATHER_SECONDS)
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        for state in [*self._running]:
            self._guarded(state, self._read)

    def _guarded(self, state: OpenVINOState, work: Callable[[OpenVINOState], bool]) -> None:
        """Work for one request. Remove it if it is finished or fails."""
        try:
            finished = work(state)
        except BaseException as error:  # noqa: BLE001  a constraint may raise anything, or panic
            state.deliver(as_student_error(error))
            finished = True
        if finished:
            self._running.remove(state)
            self._release(state)

    def _release(self, state: OpenVINOState) -> None:
        if state.handle is not None:
            state.handle.cancel()
            state.handle = None

    def _remove_cancelled(self) -> None:
        self.queue.pop_discarded()  # OpenVINO frees its prefix cache itself
        for waiting in self.queue.pop_cancelled():
            waiting.deliver(None)
        for state in [state for state in self._running if state.is_cancelled]:
            self._running.remove(state)
            self._release(state)
            state.deliver(None)

    def _admit(self) -> int:
        """Start the requests that may start. Return how many."""
        admitted = 0
        while len(self._running) < self._config.max_batch_size:
            with self.queue.lock:
                if not self.queue.waiting:
                    break
                computed = self._being_computed()
                ready = (s for s in self.queue.waiting if not self._begins_like(computed, s))
                if (state := next(ready, None)) is None:
                    break
                self.queue.waiting.remove(state)
            assert isinstance(state, OpenVINOState)
            state.started.set()
            self._running.append(state)
            self.queue.claim_ahead(state.request.prompt)
            if state.request.seed is not None:
                state.seed = state.request.seed
            self._guarded(state, self._begin)
            admitted += 1
        return admitted

    def _being_computed(self) -> set[int]:
        """Return the blocks of prompts that are being prefilled."""
        if not self._keeps_blocks:
            return set()
        blocks = {block for s in self._running if not s.written for block in s.blocks}
        return blocks if self._ahead is None else blocks.union(self._ahead_blocks)

    def _begins_like(self, computed: set[int], state: RequestState) -> bool:
        """Whether another request is computing the next block that this one needs.

        OpenVINO looks into its cache only when a request is added.
        """
        assert isinstance(state, OpenVINOState)
        return next((block for block in state.blocks if block not in self._known), None) in computed

    def _know(self, blocks: list[int]) -> None:
        if len(self._known) > _MOST_KNOWN:  # OpenVINO forgets old blocks, too
            self._known.clear()
        self._known.update(blocks)

    def _begin(self, state: OpenVINOState) -> bool:
        seam = state.request.seam
        self._start(state, literal(seam.spelled.decode()) + ANY if seam else None)
        return False

    def _end_ahead(self) -> None:
        if self._ahead is None:
            return
        ahead, handle = self._ahead
        if ahead.claimed.is_set():
            handle.cancel()
        elif handle.get_status() == openvino_genai.GenerationStatus.RUNNING:
            return
        else:
            self._know(self._ahead_blocks)
        ahead.finish()
        self._ahead = None

    def _begin_ahead(self) -> bool:
        if self._ahead is not None or (waiting := self.queue.pending_ahead()) is None:
            return False
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        self._ahead_blocks = block_numbers(waiting.ids)
        whole = len(self._ahead_blocks) * BLOCK
        self._ahead = waiting, self._add(waiting.ids[:whole], config)
        return True

    def _add(self, ids: list[int], config: Any) -> Any:
        self._requests += 1
        tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
        return self._pipeline.add_request(self._requests, tensor, config)

    def _start(
        self, state: OpenVINOState, pattern: str | None = None, *, exact: bool = False
    ) -> None:
        """Give a request to OpenVINO, from the text so far.

        Args:
            state: The request.
            pattern: What the rest of its text has to match. None for anything.
            exact: Whether the caller wants a single token only.
        """
        self._release(state)
        request, ids = state.request, [*state.ids, *state.written]
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1 if exact else state.max_length - len(ids)
        config.stop_token_ids = self._end_ids
        if self._end_ids:
            config.eos_token_id = min(self._end_ids)
        config.do_sample = request.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = request.temperature, request.top_p
            config.rng_seed = (state.seed + state.restarts) % SEEDS
        config.logprobs = 0 if state.recorder is None else 1
        if pattern is not None:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(regex=pattern)
        state.exact = exact
        state.restarts += 1
        state.handle = self._add(ids, config)

    def _read(self, state: OpenVINOState) -> bool:
        """Take the tokens of a step. Return whether the request is finished."""
        handle = state.handle
        if not handle.can_read():
            status = handle.get_status()
            if status == openvino_genai.GenerationStatus.RUNNING:
                return False
            raise StudentError(
                f"OpenVINO ended the answer too early ({status.name}): its KV cache has no more "
                "room; raise kv_tokens, or lower max_tokens or max_batch_size"
            )
        for output in handle.read().values():
            if state.recorder is not None:
                for token, log_prob in zip(
                    output.generated_ids, output.generated_log_probs, strict=True
                ):
                    state.recorder.record(token, min(1.0, math.exp(log_prob)))
            for token in output.generated_ids:
                if self._take(state, token):
                    return True
                if state.handle is not handle:
                    return False
        return False

    def _take(self, state: OpenVINOState, token: int) -> bool:
        """Take a token that OpenVINO chose. Return whether the request is finished."""
        if not state.written:
            self._know(state.blocks)
        constraint = state.constraint
        if constraint is None:
            return self._append(state, token)
        ends = token in self._end_ids
        if not (constraint.may_end if ends else constraint.accepts([token])):
            return self._choose_again(state, constraint, b"" if ends else self._bytes([token]))
        taken, again = constraint.take(token), state.exact
        finished = self._append(state, taken)
        if not finished and (again or taken != token):
            self._start(state)
        return finished

    def _append(self, state: OpenVINOState, token: int) -> bool:
        state.written.append(token)
        state.refused.clear()
        return state.append(token, self._end_ids)

    def _bytes(self, tokens: list[int]) -> bytes:
        return b"".join(map(self._spelling().of, tokens))

    def _choose_again(
        self, state: OpenVINOState, constraint: TextConstraint, refused: bytes
    ) -> bool:
        """Have OpenVINO choose a token again, among those that the constraint allows.

        Greedy decoding then gives the choice of masked logits. Each try allows all tokens that the
        constraint does, and fewer others than the one before.
        """
        allowed = [token for token in constraint.allowed if token not in self._end_ids]
        if state.healing is not None and state.healing.rest:
            spells = set(self._spelling().candidates(state.healing.rest))
            allowed = [token for token in allowed if token in spells]
        if len(allowed) == 1 and not constraint.may_end:
            finished = self._append(state, constraint.take(allowed[0]))
            if not finished:
                self._start(state)
            return finished
        words = {word for token in allowed if (word := self._bytes([token]))}
        if state.exact or not words:
            raise StudentError(FORBIDDEN)
        state.refused += [refused] if refused else []
        pattern = None if constraint.may_end else words_pattern(words)
        exact = pattern is not None
        if pattern is None:
            pattern = beginnings_pattern(words, state.refused, may_end=constraint.may_end)
        self._start(state, pattern, exact=exact)
        return False
