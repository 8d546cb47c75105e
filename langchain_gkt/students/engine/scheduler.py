"""The worker of a loaded student: one thread that decodes all requests together.

Continuous batching: rows join between two steps and leave when they are finished, so that
nobody waits for a neighbour's whole answer. The thread starts with the first request and ends
when there has been nothing to do for a while.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.kv_cache import Batch
from langchain_gkt.students.engine.lookup import Lookup
from langchain_gkt.students.engine.model_runner import Apart, Forward
from langchain_gkt.students.engine.prefill import Filler, Filling
from langchain_gkt.students.engine.prefix_cache import PrefixCache
from langchain_gkt.students.engine.request import Limits, Row
from langchain_gkt.students.engine.request_queue import Desk
from langchain_gkt.students.engine.sampling import choose, make_generator

# Ids prefilled between two steps of rows that are already decoding.
_CHUNK = 512
# Attention over more shared prefixes at once costs more calls than it saves reading.
_MOST_TRUNKS = 4
# The KV cache of a worker that was given no limit.
_DEFAULT_KV_BYTES = 2 * 2**30
# How long the thread waits for more work, and how often it looks whether the program ends.
_LINGER_SECONDS, _LOOK_SECONDS = 2.0, 0.05


class Worker(Desk):
    """Decodes what the desk has taken; all methods but `stats` belong to its thread."""

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
        self.forward = forward
        self._end_ids, self._backend_tokenizer = end_ids, backend_tokenizer
        self.steps = 0
        super().__init__(limits, context)

    def _reset(self) -> None:
        super()._reset()
        self._filling: Row | None = None
        self._rows: list[Row] = []
        self._apart: list[Row] = []
        self._batch: Batch | None = None
        self.prefixes = PrefixCache(self.limits.prefix_cache_bytes)
        self._filler = Filler(self.forward, self.prefixes)

    def close(self) -> None:
        """End the thread, and forget the prompts seen."""
        super().close()
        self.prefixes.clear()

    def stats(self) -> dict[str, int]:
        """Return what is in use, to be looked at while nothing else depends on it.

        Returns:
            ``rows`` and ``waiting`` requests, ``kv_tokens`` held for them, ``kv_bytes``
            allocated (kept for a moment after the last row), ``prefix_bytes`` of prompts seen
            or prefilled ahead, and ``steps`` made so far.
        """
        batch = self._batch
        filling = [self._filling] if self._filling else []
        rows = [*self._rows, *self._apart, *filling]
        return {
            "rows": len(rows),
            "waiting": len(self._waiting),
            "kv_tokens": sum(len(row.ids) + row.count for row in rows),
            "kv_bytes": (batch.nbytes if batch is not None else 0) + self._filler.nbytes,
            "prefix_bytes": self.prefixes.nbytes,
            "steps": self.steps,
        }

    def _run(self) -> None:
        torch.get_num_threads()  # makes a new thread take over the number the user has set
        with torch.inference_mode():
            while self._next():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001  nobody may be left waiting
                    with self._wake:
                        stranded = self._take_all()
                    _fail(stranded, error)

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
        _fail(stranded, StudentError("the student was closed before the answer was finished"))
        return False

    def _busy(self) -> bool:
        return bool(
            self._waiting
            or self._filling
            or self._rows
            or self._apart
            or self._unwanted
            or not all(ahead.done for ahead in self._ahead)
        )

    def _take_all(self) -> list[Row]:
        rows = [*self._rows, *self._apart, *self._waiting]
        rows += [self._filling] if self._filling else []
        self._rows, self._apart, self._filling = [], [], None
        self._batch = None
        self._filler.free()
        self._waiting.clear()
        return rows

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
            unwanted, self._unwanted = self._unwanted, []
        for ids in unwanted:
            self.prefixes.remove(ids)
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
        while left > 0 and self._wanted():
            row = self._filling or self._next_waiting()
            if row is None:
                break
            if row.dropped:
                self._filling = None
                row.deliver(None)
                continue
            self._filling = row
            left -= self._prefill(row, left)
            if not self._rows and not self._apart:
                left = _CHUNK
        if self._filling is None:
            with self._wake:
                ahead = next((a for a in self._ahead if not a.done), None)
            if ahead is not None:
                self._filler.work_ahead(ahead, max(left, 1))

    def _next_waiting(self) -> Row | None:
        """Take the first waiting row if it fits; the others stay behind it."""
        most, running = self.kv_tokens, [*self._rows, *self._apart]
        while True:
            with self._wake:
                if not self._waiting:
                    return None
                row = self._waiting[0]
                fits = row.length <= most
                if fits and running:
                    longest = max(other.length for other in [row, *running])
                    if (
                        len(running) >= self.limits.max_batch_size
                        or (len(running) + 1) * longest > most
                    ):
                        return None
                self._waiting.popleft()
            if fits:
                return row
            row.deliver(
                StudentError(
                    f"the request needs up to {row.length} tokens of KV cache ({len(row.ids)} of "
                    f"text and max_tokens={row.request.max_tokens}), but kv_tokens allows {most}; "
                    "shorten the messages, lower max_tokens or raise kv_tokens"
                )
            )

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
            filling: Filling = row.state or self._begin(row)
            count, logits = self._filler.feed(filling, most)
            if not filling.complete:
                return count
        except Exception as error:  # noqa: BLE001  whatever a model raises
            self._filling = None
            row.deliver(_wrapped(error))
            return 0
        self._filling = None
        if self.limits.prompt_lookup and not row.generator and not row.request.constraint:
            row.lookup = Lookup(row.ids)
        chosen = choose(logits[None], [row])[0]
        if not self._take(row, chosen):
            if self._batch is None:
                self._batch = Batch(self.forward.layers, self.forward.device)
            trunk = None
            if self._rows or self._waiting:  # alone, one piece is quicker
                few = len(self._batch.trunks) < _MOST_TRUNKS
                trunk = self.prefixes.trunk(filling.shared, make=few)
            longest = max(other.length for other in [row, *self._rows])
            expected = min(
                len(self._rows) + len(self._waiting) + 1,
                self.limits.max_batch_size,
                self.kv_tokens // longest,
            )
            self._batch.join(filling.held, trunk, expected=expected)
            self._rows.append(row)
        if isinstance(chosen, int):  # else the keys and values are no numbers
            self.prefixes.insert(row.request.prompt, filling.held)
        row.state = None
        return count

    def _begin(self, row: Row) -> Filling:
        with self._wake:
            for ahead in [a for a in self._ahead if a.ids == row.request.prompt]:
                ahead.taken = True
                self._ahead.remove(ahead)
        row.state = filling = self._filler.begin(row.ids)
        return filling

    def _step(self) -> None:
        """Give every row of the batch one more token."""
        assert self._batch is not None
        try:
            if len(self._rows) == 1 and self._step_by_guessing(self._rows[0], self._batch):
                return
            logits = self.forward.decode(self._batch, [row.token for row in self._rows])
        except Exception as error:  # noqa: BLE001  the batch cannot be trusted any more
            rows, self._rows, self._batch = self._rows, [], None
            _fail(rows, error)
            return
        self.steps += 1
        chosen = choose(logits, self._rows)
        for slot in reversed(range(len(self._rows))):
            if self._take(self._rows[slot], chosen[slot]):
                if not isinstance(chosen[slot], int):
                    self._batch.scrub(slot)
                self._leave(slot)

    def _step_by_guessing(self, row: Row, batch: Batch) -> bool:
        """Give the only row several tokens at once; return False where nothing is guessed."""
        most = min(self.limits.prompt_lookup, row.request.max_tokens - row.count - 1)
        guess = row.lookup.guess(most) if row.lookup is not None and not batch.trunks else []
        if not guess:
            return False
        chosen = choose(self.forward.check(batch, [row.token, *guess]), [row] * (len(guess) + 1))
        self.steps += 1
        for kept, token in enumerate(chosen, 1):
            finished = self._take(row, token)
            if finished or token != [*guess, None][kept - 1]:
                break
        batch.end_step(kept)
        if finished:
            self._leave(0)
        return True

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


def _fail(rows: list[Row], error: Exception) -> None:
    for row in rows:
        row.deliver(_wrapped(error))


def _wrapped(error: Exception) -> StudentError:
    if isinstance(error, StudentError):
        return error
    wrapped = StudentError(f"the student failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
