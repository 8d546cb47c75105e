"""The worker of a loaded student: one thread that decodes all requests together.

Continuous batching: rows join between two steps and leave when they are finished, so that
nobody waits for a neighbour's whole answer. The thread starts with the first request and ends
when there has been nothing to do for a while.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.forward import Apart, Forward
from langchain_gkt.students.kv import Batch, KeyValues
from langchain_gkt.students.prefix import Match, PrefixCache, common
from langchain_gkt.students.request import Row
from langchain_gkt.students.sampling import choose, make_generator
from langchain_gkt.students.trunk import Trunk

# Ids prefilled between two steps of rows that are already decoding.
_CHUNK = 512
# Attention over more shared prefixes at once costs more calls than it saves reading.
_MOST_TRUNKS = 4
# Room left behind a prompt that is prefilled ahead, for the guidance that will follow.
_GUIDANCE_ROOM = 128
_DEFAULT_KV_BYTES = 2 * 2**30
# How long the thread waits for more work, and how often it looks whether the program ends.
_LINGER_SECONDS, _LOOK_SECONDS = 2.0, 0.05


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a worker may use.

    Attributes:
        max_batch_size: Most rows that decode together.
        max_queue: Most requests that wait beside them.
        kv_tokens: Most tokens of KV cache, padding included; None for 2 GiB of them, or the
            model's context if that is more.
        prefix_cache_bytes: Most bytes of KV cache kept of prompts that were seen.
    """

    max_batch_size: int = 16
    max_queue: int = 1024
    kv_tokens: int | None = None
    prefix_cache_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        """Refuse what would admit nobody."""
        for name, least in (("max_batch_size", 1), ("max_queue", 1), ("prefix_cache_bytes", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.kv_tokens is not None and self.kv_tokens < 1:
            raise ValueError(f"kv_tokens={self.kv_tokens} must be at least 1, or None")


@dataclass(eq=False)
class Ahead:
    """A prompt that is prefilled before its request comes."""

    ids: list[int]
    held: KeyValues | None = None
    logits: torch.Tensor | None = None
    trunk: Trunk | None = None
    closed: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to prefill."""
        return self.closed or (self.held is not None and self.held.window.end >= len(self.ids))


@dataclass
class _Held:
    """A row's part of the KV cache before it joins the batch."""

    held: KeyValues
    trunk: Trunk | None
    logits: torch.Tensor | None = None


class Worker:
    """Takes rows from any thread and decodes them on its own."""

    def __init__(
        self,
        forward: Forward,
        *,
        limits: Limits,
        context: int | None,
        end_ids: set[int],
        backend_tokenizer: Any,
    ) -> None:
        """Prepare, without starting a thread.

        Args:
            forward: The model.
            limits: What may be used.
            context: The model's context in tokens, if it has one.
            end_ids: Ids that end an answer.
            backend_tokenizer: Turns ids into text.
        """
        self.forward, self.limits, self.context = forward, limits, context
        self._end_ids, self._backend_tokenizer = end_ids, backend_tokenizer
        self.closed = False
        self.steps = 0
        self._reset()
        _workers.add(self)

    def _reset(self) -> None:
        """Begin without rows, without a thread and with a lock of our own."""
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: deque[Row] = deque()
        self._filling: Row | None = None
        self._ahead: list[Ahead] = []
        self._rows: list[Row] = []
        self._apart: list[Row] = []
        self._batch: Batch | None = None
        self._scratch: KeyValues | None = None
        self._scratch_ids: list[int] = []
        self.prefixes = PrefixCache(self.limits.prefix_cache_bytes)

    # -- called from any thread ----------------------------------------------------------

    def submit(self, row: Row) -> None:
        """Queue a row.

        Args:
            row: The row.

        Raises:
            StudentError: If the student is closed, or too many requests wait already.
        """
        with self._wake:
            if self.closed:
                raise StudentError("the student is closed; make a new one")
            if len(self._waiting) >= self.limits.max_queue:
                raise StudentError(
                    f"{len(self._waiting)} requests already wait for the student, and max_queue="
                    f"{self.limits.max_queue}; send fewer at once, or raise max_queue"
                )
            self._waiting.append(row)
            self._start()

    def prefill_ahead(self, ids: list[int]) -> Ahead:
        """Queue a prompt whose request will come later.

        Args:
            ids: The prompt.

        Returns:
            A handle for `forget`.
        """
        ahead = Ahead(ids)
        with self._wake:
            if self.closed:
                ahead.closed = True
            else:
                self._ahead.append(ahead)
                self._start()
        return ahead

    def forget(self, ahead: Ahead) -> None:
        """Free a prompt prefilled ahead, unless its request has taken it over.

        Args:
            ahead: What `prefill_ahead` returned.
        """
        with self._wake:
            ahead.closed = True
            if ahead in self._ahead:
                self._ahead.remove(ahead)

    def close(self) -> None:
        """End the thread; whoever still waits gets a StudentError."""
        with self._wake:
            self.closed = True
            thread = self._thread
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._wake:
            self._ahead.clear()
            self.prefixes.clear()

    def stats(self) -> dict[str, int]:
        """Return what is in use, to be looked at while nothing else depends on it.

        Returns:
            ``rows`` and ``waiting`` requests, ``kv_tokens`` held for them and for prompts
            prefilled ahead, ``kv_bytes`` allocated (kept for a moment after the last row),
            ``prefix_bytes`` of prompts seen, and ``steps`` made so far.
        """
        ahead = [a.held for a in list(self._ahead) if a.held is not None]
        held = [kv for kv in (self._batch, self._scratch, *ahead) if kv is not None]
        filling = [self._filling] if self._filling else []
        rows = [*self._rows, *self._apart, *filling]
        return {
            "rows": len(rows),
            "waiting": len(self._waiting),
            "kv_tokens": sum(len(row.ids) + row.count for row in rows)
            + sum(kv.window.end for kv in ahead),
            "kv_bytes": sum(kv.nbytes for kv in held),
            "prefix_bytes": self.prefixes.nbytes,
            "steps": self.steps,
        }

    def _start(self) -> None:
        if self._thread is None:
            # No daemon: a daemon would be torn down in the middle of a step.
            self._thread = threading.Thread(target=self._run, name="gkt-student")
            self._thread.start()
        self._wake.notify_all()

    # -- the worker's own thread ---------------------------------------------------------

    def _run(self) -> None:
        torch.get_num_threads()  # makes a new thread take over the number the user has set
        with torch.inference_mode():
            while self._next():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001  whatever a model raises
                    self._fail_all(error)

    def _next(self) -> bool:
        """Wait for work; return False, with no thread left, where the worker is to end."""
        with self._wake:
            last = time.monotonic() + _LINGER_SECONDS
            while not self._busy() and self._wanted() and time.monotonic() < last:
                self._wake.wait(_LOOK_SECONDS)
            if self._busy() and self._wanted():
                return True
            self._thread = None
            stranded = self._take_all()
        for row in stranded:
            row.deliver(StudentError("the student was closed before the answer was finished"))
        return False

    def _busy(self) -> bool:
        return bool(
            self._waiting
            or self._filling
            or self._rows
            or self._apart
            or not all(ahead.done for ahead in self._ahead)
        )

    def _wanted(self) -> bool:
        # The main thread ends before the interpreter joins the others.
        return not self.closed and threading.main_thread().is_alive()

    def _take_all(self) -> list[Row]:
        rows = [*self._rows, *self._apart, *self._waiting]
        rows += [self._filling] if self._filling else []
        self._rows, self._apart, self._filling = [], [], None
        self._batch = self._scratch = None
        self._waiting.clear()
        return rows

    def _fail_all(self, error: Exception) -> None:
        """End every running row: the batch cannot be trusted any more."""
        rows = [*self._rows, *self._apart]
        self._rows, self._apart, self._batch = [], [], None
        for row in rows:
            row.deliver(_wrapped(error))

    def _turn(self) -> None:
        """Drop who has left, let some in, and make a step."""
        self.forward.try_out()
        self._drop()
        self._admit()
        if self._rows:
            self._step()
        for row in list(self._apart):
            self._step_apart(row)

    def _drop(self) -> None:
        with self._wake:
            gone = [row for row in self._waiting if row.dropped]
            for row in gone:
                self._waiting.remove(row)
        if self._filling and self._filling.dropped:
            gone.append(self._filling)
            self._filling = None
        for row in [row for row in self._apart if row.dropped]:
            self._apart.remove(row)
            gone.append(row)
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].dropped:
                gone.append(self._leave(slot))
        for row in gone:
            row.deliver(None)

    def _leave(self, slot: int) -> Row:
        assert self._batch is not None
        row, last = self._rows[slot], self._rows.pop()
        if slot < len(self._rows):
            self._rows[slot] = last
        self._batch.leave(slot)
        return row

    def _admit(self) -> None:
        """Prefill waiting rows, as long as those that decode are not kept waiting."""
        left = _CHUNK
        while left > 0:
            row = self._filling or self._next_waiting()
            if row is None:
                break
            self._filling = row
            left -= self._prefill(row, left)
            if not self._rows and not self._apart:
                left = _CHUNK
        if not self._filling:
            self._work_ahead(left)

    def _next_waiting(self) -> Row | None:
        """Take the first waiting row if it fits; the others stay behind it."""
        with self._wake:
            if not self._waiting:
                return None
            row = self._waiting[0]
            running = [*self._rows, *self._apart]
            most = self.kv_tokens
            fits = row.length <= most
            if fits and running:
                longest = max(other.length for other in [row, *running])
                if (
                    len(running) >= self.limits.max_batch_size
                    or (len(running) + 1) * longest > most
                ):
                    return None
            self._waiting.popleft()
        if not fits:
            row.deliver(
                StudentError(
                    f"the request needs up to {row.length} tokens of KV cache ({len(row.ids)} of "
                    f"text and max_tokens={row.request.max_tokens}), but kv_tokens allows {most}; "
                    "shorten the messages, lower max_tokens or raise kv_tokens"
                )
            )
            return self._next_waiting()
        return row

    @property
    def kv_tokens(self) -> int:
        """Most tokens of KV cache, padding included."""
        if self.limits.kv_tokens is not None:
            return self.limits.kv_tokens
        fitting = _DEFAULT_KV_BYTES // max(1, self.forward.bytes_per_token)
        return max(fitting, self.context or 0)

    def _prefill(self, row: Row, most: int) -> int:
        """Prefill up to so many ids of a row; return how many."""
        try:
            if row.generator is None:
                row.generator = make_generator(row.request, self.forward.device)
            if not self.forward.batches:
                row.state = self.forward.begin_apart(row)
                self._filling = None
                self._apart.append(row)
                self._step_apart(row)
                return len(row.ids)
            state = row.state if row.state is not None else self._begin(row)
            row.state = state
            held: KeyValues = state.held
            chunk = row.ids[held.window.end :][:most]
            if chunk:
                state.logits = self.forward.prefill(held, chunk)
            if held is self._scratch:
                self._scratch_ids = row.ids[: held.window.end]
            if held.window.end < len(row.ids):
                return len(chunk)
        except Exception as error:  # noqa: BLE001  whatever a model raises
            self._filling = None
            row.deliver(_wrapped(error))
            return 0
        self._filling = None
        assert state.logits is not None
        chosen = choose(state.logits[None], [row])[0]
        if not self._take(row, chosen):
            if self._batch is None:
                self._batch = Batch(self.forward.layers, self.forward.device)
            known = self._batch.trunks
            alone = not self._rows and not self._waiting
            few = state.trunk in known or len(known) < _MOST_TRUNKS
            trunk = state.trunk if few and not alone else None
            expected = min(len(self._rows) + len(self._waiting) + 1, self.limits.max_batch_size)
            self._batch.join(held, trunk, expected=expected)
            self._rows.append(row)
        if isinstance(chosen, int):  # else the keys and values are no numbers
            self.prefixes.insert(row.request.prompt, held)
        row.state = None
        return len(chunk)

    def _begin(self, row: Row) -> _Held:
        """Find what is already known of a row's ids."""
        with self._wake:
            ahead = next((a for a in self._ahead if a.ids == row.request.prompt and a.held), None)
            if ahead is not None:
                self._ahead.remove(ahead)
        if ahead is not None and ahead.held is not None:
            if ahead.held.columns < len(row.ids):
                ahead.held.resized(1, len(row.ids), ahead.held.window.end)
            return _Held(ahead.held, ahead.trunk, ahead.logits)
        match = self.prefixes.match(row.ids)
        trunk = match.trunk if self.forward.shares else None
        held = self._scratch
        if held is None or held.columns < len(row.ids):
            held = self._scratch = KeyValues(self.forward.layers, len(row.ids) + _GUIDANCE_ROOM)
            self._scratch_ids = []
        # The row before often began alike: then nothing has to be copied.
        known = common(self._scratch_ids, row.ids[:-1]) if self.prefixes.max_bytes else 0
        if known >= match.length:
            held.window.end = known
        else:
            held.window.end = 0
            _load(held, match)
        self._scratch_ids = row.ids[: held.window.end]
        return _Held(held, trunk)

    def _work_ahead(self, most: int) -> None:
        """Prefill a piece of a prompt whose request has not come yet."""
        with self._wake:
            ahead = next((a for a in self._ahead if not a.done), None)
        if ahead is None:
            return
        try:
            if not self.forward.batches:
                raise StudentError("this student cannot prefill ahead")
            if ahead.held is None:
                match = self.prefixes.match(ahead.ids)
                ahead.trunk = match.trunk if self.forward.shares else None
                ahead.held = KeyValues(self.forward.layers, len(ahead.ids) + _GUIDANCE_ROOM)
                _load(ahead.held, match)
            chunk = ahead.ids[ahead.held.window.end :][: max(most, 1)]
            ahead.logits = self.forward.prefill(ahead.held, chunk)
        except Exception:  # noqa: BLE001  nobody waits for it; its request will meet the same
            self.forget(ahead)

    def _step(self) -> None:
        """Give every row of the batch one more token."""
        assert self._batch is not None
        logits = self.forward.decode(self._batch, [row.token for row in self._rows])
        self.steps += 1
        chosen = choose(logits, self._rows)
        for slot in reversed(range(len(self._rows))):
            if self._take(self._rows[slot], chosen[slot]):
                if not isinstance(chosen[slot], int):
                    self._batch.scrub(slot)
                self._leave(slot)

    def _step_apart(self, row: Row) -> None:
        state: Apart = row.state
        try:
            logits = self.forward.step_apart(state)
            self.steps += 1
            finished = self._take(row, choose(logits[None], [row])[0])
            state.pending = [row.token]
        except Exception as error:  # noqa: BLE001  whatever a model raises
            row.deliver(_wrapped(error))
            finished = True
        if finished:
            self._apart.remove(row)

    def _take(self, row: Row, chosen: int | Exception) -> bool:
        """Give a row its token; return whether it ends with it."""
        if isinstance(chosen, int):
            try:
                return row.take(chosen, self._end_ids, self._backend_tokenizer)
            except Exception as error:  # noqa: BLE001  a constraint may raise anything
                chosen = error
        row.deliver(_wrapped(chosen))
        return True


def _load(held: KeyValues, match: Match) -> None:
    for segment in match.segments:
        held.load(segment)


def _wrapped(error: Exception) -> StudentError:
    if isinstance(error, StudentError):
        return error
    wrapped = StudentError(f"the student failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _forget_threads() -> None:
    """Begin anew in a forked child: the thread and whatever it held stayed with the parent."""
    for worker in list(_workers):
        worker._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
