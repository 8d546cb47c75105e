"""The scheduler of a student: one thread that decodes all requests together.

Continuous batching: requests join the batch between two steps and leave it when they are
finished, so no request waits for another's whole answer.
"""

from __future__ import annotations

import weakref

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.failures import CLOSED, as_student_error
from langchain_gkt.students.engine.forks import in_forked_child
from langchain_gkt.students.engine.kv.kv_cache import BatchKVCache
from langchain_gkt.students.engine.kv.prefix_cache import PrefixCache
from langchain_gkt.students.engine.model_runner import ModelRunner
from langchain_gkt.students.engine.prefill import Prefiller
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.request_queue import RequestQueue
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.sampling import make_generator, sample

# How many ids to prefill between two steps of requests that are already decoding.
_CHUNK = 512
# Attention over more shared prefixes at once costs more calls than it saves in reads.
_MAX_SHARED_PREFIXES = 4
# The KV cache of a scheduler without a limit.
_DEFAULT_KV_BYTES = 2 * 2**30


class Scheduler:
    """Admits, prefills and decodes the requests of one model.

    `prefill_ahead`, `stats`, `close` and the queue are for any thread. All else belongs to the
    queue's own.
    """

    def __init__(
        self,
        model_runner: ModelRunner,
        *,
        config: EngineConfig,
        context: int | None,
        end_ids: set[int],
    ) -> None:
        """Prepare, without starting a thread. The ``context`` is the model's, in tokens."""
        self.model_runner, self.config, self._context = model_runner, config, context
        self._end_ids = end_ids
        self.steps = 0
        self.queue = RequestQueue(config.max_queue, self._serve)
        self._start_anew()
        _schedulers.add(self)

    def _start_anew(self) -> None:
        self._prefilling: RequestState | None = None
        self._decoding: list[RequestState] = []
        self._unbatched: list[RequestState] = []
        self._batch: BatchKVCache | None = None
        self.prefix_cache = PrefixCache(self.config.prefix_cache_bytes)
        self._prefiller = Prefiller(self.model_runner, self.prefix_cache)

    def prefill_ahead(self, ids: list[int]) -> PrefillHandle:
        """Queue a prompt whose request will come later."""
        # Ignores a prompt that is too long. Its request will raise the error.
        limits = (self._context, self.config.kv_tokens)
        fits = all(limit is None or len(ids) < limit for limit in limits)
        fits = fits and self.config.prefix_cache_bytes > 0
        ahead = PrefillHandle(ids, self.queue.discard_ahead, useless=not fits)
        if fits:
            self.queue.submit_ahead(ahead)
        return ahead

    def close(self) -> None:
        """End the thread and free the caches. Requests that still run get a StudentError."""
        self.queue.close()
        self.prefix_cache.clear()

    def stats(self) -> dict[str, int]:
        """Return what is in use. The numbers may be a step apart from each other."""
        batch, states = self._batch, self._running
        return {
            "rows": len(states),
            "waiting": len(self.queue.waiting),
            "kv_tokens": sum(len(state.ids) + state.count for state in states),
            # Kept for a moment after the last request.
            "kv_bytes": (batch.nbytes if batch is not None else 0) + self._prefiller.nbytes,
            "prefix_bytes": self.prefix_cache.nbytes,
            "steps": self.steps,
        }

    @property
    def _running(self) -> list[RequestState]:
        prefilling = [self._prefilling] if self._prefilling else []
        return [*self._decoding, *self._unbatched, *prefilling]

    def _serve(self) -> None:
        # Either makes a new thread use the number that the user has set.
        if self.config.threads is None:
            torch.get_num_threads()
        else:
            torch.set_num_threads(self.config.threads)
        with torch.inference_mode():
            while self._wait_for_work():
                try:
                    self._run_step()
                except BaseException as error:  # noqa: BLE001  no request may be left waiting
                    with self.queue.lock:
                        states = self._remove_all()
                    self.prefix_cache.clear()  # a panic may have left bad state behind
                    _fail(states, error)

    def _wait_for_work(self) -> bool:
        with self.queue.lock:
            busy = bool(self._decoding or self._prefilling or self._unbatched)
            if self.queue.wait_for_work(busy=busy):
                return True
            states = self._remove_all()
        _fail(states, StudentError(CLOSED))
        return False

    def _remove_all(self) -> list[RequestState]:
        states = [*self._running, *self.queue.waiting]
        self._decoding, self._unbatched, self._prefilling = [], [], None
        self._batch = None
        self._prefiller.free()
        self.queue.waiting.clear()
        return states

    def _run_step(self) -> None:
        """Remove cancelled requests, admit new ones, and decode one token for each running one."""
        self.model_runner.detect_capabilities()
        self._remove_cancelled()
        self._admit()
        if self._decoding:
            self._decode()
        for state in list(self._unbatched):
            self._step_unbatched(state)

    def _remove_cancelled(self) -> None:
        cancelled = self.queue.pop_cancelled()
        for ids in self.queue.pop_discarded():
            self.prefix_cache.remove(ids)
        if self._prefilling and self._prefilling.is_cancelled:
            cancelled.append(self._prefilling)
            self._prefilling = None
        for state in [state for state in self._unbatched if state.is_cancelled]:
            self._unbatched.remove(state)
            cancelled.append(state)
        for slot in reversed(range(len(self._decoding))):
            if self._decoding[slot].is_cancelled:
                cancelled.append(self._remove_row(slot))
        for state in cancelled:
            state.deliver(None)

    def _remove_row(self, slot: int) -> RequestState:
        assert self._batch is not None
        state, last = self._decoding[slot], self._decoding.pop()
        if slot < len(self._decoding):
            self._decoding[slot] = last
        self._batch.remove(slot)
        return state

    def _admit(self) -> None:
        """Prefill waiting requests, a chunk at most while others decode."""
        left = _CHUNK
        while left > 0 and self.queue.is_serving:
            state = self._prefilling or self._next_waiting()
            if state is None:
                break
            if state.is_cancelled:
                self._prefilling = None
                state.deliver(None)
                continue
            self._prefilling = state
            left -= self._prefill(state, left)
            if not self._decoding and not self._unbatched:
                left = _CHUNK
        if self._prefilling is None and (ahead := self.queue.pending_ahead()) is not None:
            self._prefiller.advance_ahead(ahead, max(left, 1))

    def _next_waiting(self) -> RequestState | None:
        """Take the first waiting request if it fits. The others stay behind it."""
        limit, running = self.kv_tokens, [*self._decoding, *self._unbatched]
        while True:
            with self.queue.lock:
                if not self.queue.waiting:
                    return None
                state = self.queue.waiting[0]
                fits = state.max_length <= limit
                longest = max(other.max_length for other in [state, *running])
                is_room = (len(running) + 1) * longest <= limit
                if fits and running and not (is_room and len(running) < self.config.max_batch_size):
                    return None
                self.queue.waiting.popleft()
            state.started.set()
            if fits:
                return state
            state.deliver(
                StudentError(
                    f"the request needs up to {state.max_length} tokens of KV cache "
                    f"({len(state.ids)} of text and max_tokens={state.request.max_tokens}), but "
                    f"kv_tokens allows {limit}; shorten the messages, lower max_tokens or raise "
                    "kv_tokens"
                )
            )

    @property
    def kv_tokens(self) -> int:
        """Maximum tokens of KV cache, padding included."""
        if self.config.kv_tokens is not None:
            return self.config.kv_tokens
        fitting = _DEFAULT_KV_BYTES // max(1, self.model_runner.bytes_per_token)
        return max(fitting, self._context or 0)

    def _prefill(self, state: RequestState, max_tokens: int) -> int:
        """Prefill up to this many ids of a request. Return how many."""
        try:
            if state.generator is None:
                state.generator = make_generator(state.request, self.model_runner.device)
            if not self.model_runner.can_batch:
                state.unbatched = self.model_runner.start_unbatched(state.request)
                self._prefilling = None
                self._unbatched.append(state)
                self._step_unbatched(state)
                return len(state.ids)
            if state.prefill is None:
                self.queue.claim_ahead(state.request.prompt)
                state.prefill = self._prefiller.start(state.ids, len(state.request.prompt))
            # Batching already perturbs logits, and a second pass would slow down the others.
            split = not (self.model_runner.is_exact or self._decoding or self.queue.waiting)
            count, logits = self._prefiller.advance(state.prefill, max_tokens, split=split)
            if not state.prefill.complete:
                return count
        except BaseException as error:  # noqa: BLE001  whatever a model raises
            self._prefilling = None
            state.deliver(as_student_error(error))
            return 0
        self._prefilling = None
        chosen = sample(logits[None], [state])[0]
        cache = state.prefill.cache
        if not self._append(state, chosen):
            self._add_row(state)
        if isinstance(chosen, int):  # else the keys and values are not numbers
            known = state.request.prompt[: state.prefill.reusable]
            self.prefix_cache.insert(known, cache)
        state.prefill = None
        return count

    def _add_row(self, state: RequestState) -> None:
        assert state.prefill is not None
        if self._batch is None:
            self._batch = self.model_runner.new_batch()
        shared_prefix = None
        others = self._decoding or self.queue.waiting  # a single row is faster without
        if others and self.model_runner.can_share_prefixes:
            shared_prefix = self.prefix_cache.shared_prefix(
                state.prefill.shared_nodes,
                create=len(self._batch.window.shared_prefixes) < _MAX_SHARED_PREFIXES,
            )
        longest = max(other.max_length for other in [state, *self._decoding])
        expected = min(
            len(self._decoding) + len(self.queue.waiting) + 1,
            self.config.max_batch_size,
            self.kv_tokens // longest,
        )
        self._batch.add(state.prefill.cache, shared_prefix, expected=expected)
        self._decoding.append(state)

    def _decode(self) -> None:
        """Decode one more token for every request of the batch."""
        assert self._batch is not None
        try:
            tokens = [state.token for state in self._decoding]
            logits = self.model_runner.decode(self._batch, tokens)
        except BaseException as error:  # noqa: BLE001  the batch cannot be trusted any more
            states, self._decoding, self._batch = self._decoding, [], None
            _fail(states, error)
            return
        self.steps += 1
        chosen = sample(logits, self._decoding)
        for slot in reversed(range(len(self._decoding))):
            if self._append(self._decoding[slot], chosen[slot]):
                if not isinstance(chosen[slot], int):
                    self._batch.clear_row(slot)
                self._remove_row(slot)

    def _step_unbatched(self, state: RequestState) -> None:
        assert state.unbatched is not None
        try:
            logits = self.model_runner.step_unbatched(state.unbatched)
            self.steps += 1
            finished = self._append(state, sample(logits[None], [state])[0])
            state.unbatched.pending = [state.token]
        except BaseException as error:  # noqa: BLE001  whatever a model raises
            state.deliver(as_student_error(error))
            finished = True
        if finished:
            self._unbatched.remove(state)

    def _append(self, state: RequestState, chosen: int | BaseException) -> bool:
        """Append a request's token. Return whether the request ends with it."""
        if isinstance(chosen, int):
            try:
                return state.append(chosen, self._end_ids)
            except BaseException as error:  # noqa: BLE001  a constraint may panic, too
                chosen = error
        state.deliver(as_student_error(chosen))
        return True


def _fail(states: list[RequestState], error: BaseException) -> None:
    for state in states:
        state.deliver(as_student_error(error))


_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


@in_forked_child
def _reset_after_fork() -> None:
    """Start over in a forked child. The thread, and what it held, stayed with the parent."""
    for scheduler in list(_schedulers):
        scheduler.queue.reset()
        scheduler._start_anew()
