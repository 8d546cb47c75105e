"""One answer of a server, which generates freely, or token by token where a constraint applies.

The logits stay at the server. A regular expression constrains its text to the seam of a begun
answer, unless the model spells it by itself. If a constraint rejects a token, the writer requests
one token among those that it allows. The choice is that of masked logits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.server.connection import Unreachable
from langchain_gkt.students.backends.server.dialects import Ask, Dialect, Replies, Reply
from langchain_gkt.students.engine.failures import FORBIDDEN
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import TextConstraint
from langchain_gkt.students.engine.token_healing import TokenSpelling

RETRY_SECONDS = 0.5
"""Wait before a request is first sent again. Each further time takes twice as long."""
_SEEDS = 2**32
_NO_ID = -1  # stands for the end of a model without known end tokens


async def all_replies(replies: Replies, ask: Ask, retries: int = 0) -> list[Reply]:
    """Send a request whose replies are wanted together, again if the connection fails."""
    failures = 0
    while True:
        try:
            async with aclosing(replies(ask)) as got:
                return [reply async for reply in got]
        except Unreachable:
            failures += 1
            if failures > retries:
                raise
            await asyncio.sleep(RETRY_SECONDS * 2 ** (failures - 1))


class AnswerWriter:
    """Writes one answer."""

    def __init__(
        self,
        state: RequestState,
        spelling: TokenSpelling | None,
        end_ids: set[int],
        *,
        replies: Replies,
        marks: Sequence[str],
        dialect: Dialect,
        retries: int,
    ) -> None:
        """Start before the first token. There is no spelling if the request has no seam.

        The marks are the texts of the added tokens.
        """
        request, constraint = state.request, state.request.constraint
        self._state, self._spelling, self._replies = state, spelling, replies
        self._marks, self._dialect, self._retries = marks, dialect, retries
        self._end_ids, self._end = end_ids, min(end_ids, default=_NO_ID)
        self._rest = request.seam.spelled if request.seam else b""
        self._leaves_seam = dialect.sends_first_apart  # a lone blank to the model, at first
        self._constraint = constraint if isinstance(constraint, TextConstraint) else None
        self._written: list[int] = []
        self._banned: list[int] = []  # tokens that the constraint refused as the next one
        self._choose_again = self._finished = self._refused_schema = False
        self._requests = 0

    async def write(self) -> None:
        """Write the answer. Its chunks are delivered meanwhile."""
        failures = 0
        while not self._finished and not self._state.is_cancelled:
            before = len(self._written)
            try:
                await self._go_on()
            except Unreachable:
                # Received text stays. A server that is back continues from there.
                failures = 1 if len(self._written) > before else failures + 1
                if failures > self._retries:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2 ** (failures - 1))

    async def _go_on(self) -> None:
        if self._choose_again and self._take_forced():
            return
        if self._rest and self._constraint is None and not self._written and self._is_plain():
            await self._ask_for(self._seam_ask())
            return
        allowed = self._allowed()
        if allowed is None:
            # Its grammars begin with an answer. One of ours continues from anywhere.
            sends_schema = not self._written and not self._refused_schema
            schema = self._state.request.schema if sends_schema else None
            await self._ask_freely(self._ask(schema=schema))
        elif not allowed:
            raise StudentError(FORBIDDEN)
        elif len(allowed) == 1:
            self._take(allowed[0])  # there is nothing to choose
        elif len(allowed) <= self._dialect.most_allowed:
            await self._ask_for_one(allowed=allowed)
        else:
            await self._ask_for_one(spells=self._rest.decode(), banned=tuple(self._banned))

    def _seam_ask(self) -> Ask:
        """Return one request for all of a begun answer.

        A second one would read the end of the prompt again.
        """
        ask = self._ask(spells=self._rest.decode())
        if ask.spells.endswith(" "):
            # The next word often begins with that blank, and a token would be left over.
            ask = replace(ask, max_tokens=ask.max_tokens - 1)
        if ask.spells == " " and self._leaves_seam:
            # Most models write it by themselves. A regular expression slows down every step.
            ask = replace(ask, spells="", stream=True, first_apart=not ask.stream)
        return ask

    def _is_plain(self) -> bool:
        """Whether no control token's name could stand where the seam is spelled."""
        text = self._rest.decode()
        return not any(mark.startswith(text) or text.startswith(mark) for mark in self._marks)

    def _fits_seam(self, token: int) -> bool:
        if not self._rest or self._spelling is None:
            return True
        data = self._spelling.of(token)
        return bool(data) and (data.startswith(self._rest) or self._rest.startswith(data))

    def _take_forced(self) -> bool:
        """Take what the grammar itself spells out, which saves a request for each token."""
        before = len(self._written)
        for token in self._constraint.forced if self._constraint else ():
            if not self._take(token) and (self._finished or self._choose_again):
                break
        return len(self._written) > before

    async def _ask_freely(self, ask: Ask) -> None:
        try:
            await self._ask_for(ask)
        except StudentError as error:
            if ask.schema is None or error.status not in (400, 422):
                raise
            self._refused_schema = True  # ours knows more of them

    def _allowed(self) -> list[int] | None:
        """Return the tokens that may come next. None if the server may choose freely."""
        constraint = self._constraint
        if not self._rest:
            return constraint.allowed if self._choose_again and constraint is not None else None
        assert self._spelling is not None
        allowed = self._spelling.candidates(self._rest)
        if constraint is None:
            return allowed
        kept = set(constraint.allowed)
        return [token for token in allowed if token in kept]

    def _ask(self, **choice: Any) -> Ask:
        """Return a request for the rest of the answer, with further fields of an `Ask`."""
        state, request = self._state, self._state.request
        ids = [*state.ids, *self._written]
        seed = request.seed
        if seed is not None:
            seed = (seed + self._requests) % _SEEDS
        self._requests += 1
        return Ask(
            ids=ids,
            max_tokens=state.max_length - len(ids),
            temperature=request.temperature,
            top_p=request.top_p,
            seed=seed,
            end_ids=sorted(self._end_ids),
            # A whole answer takes fewer events, but cannot be stopped in its middle.
            stream=state.stream or self._constraint is not None or bool(request.stop),
            **choice,
        )

    async def _ask_for_one(self, **choice: Any) -> None:
        """Request one token, after which the answer continues."""
        await self._ask_for(replace(self._ask(**choice), max_tokens=1, stream=False))

    async def _ask_for(self, ask: Ask) -> None:
        """Send a request and take its tokens, until it ends or one is refused.

        The answer continues after one that ended at the request's own limit.
        """
        reason: str | None = None
        is_stopped, before, events = False, len(self._written), 0
        async with aclosing(self._replies(ask)) as replies:
            async for reply in replies:
                reason = reply.finish_reason
                ids = reply.ids
                events += bool(ids)
                if ask.first_apart and events > 2:
                    # Older versions of vLLM ignore that. An answer's end may cancel what follows.
                    self._dialect.sends_first_apart = False
                if reason == "stop" and (not ids or ids[-1] not in self._end_ids):
                    ids = [*ids, self._end]  # servers differ in whether they name it
                for token in ids:
                    if self._state.is_cancelled or not self._take(token):
                        if reason is None:
                            return  # which drops the request
                        is_stopped = True
                        break  # the rest of the reply is read, so that its connection is kept
        if reason is None:
            raise Unreachable("the server ended the answer in its middle")
        if reason not in ("stop", "length"):
            raise StudentError(f"the server ended the answer with finish_reason={reason!r}")
        is_short = reason == "length" and len(self._written) - before == ask.max_tokens
        if not is_stopped and not is_short:
            # It ends in half a character, or the server has a limit of its own.
            self._state.finish(reason)
            self._finished = True

    def _take(self, token: int) -> bool:
        """Take a token that the server chose. Return whether it may continue from it."""
        constraint, taken = self._constraint, token
        if constraint is None and self._leaves_seam and not self._fits_seam(token):
            # To draw again, from the allowed tokens alone, is the choice of masked logits.
            self._leaves_seam = False
            return False
        if constraint is not None:
            ends = token in self._end_ids
            if not (constraint.may_end if ends else constraint.accepts([token])):
                self._choose_again = True
                if token in self._banned:
                    raise StudentError(FORBIDDEN)
                self._banned.append(token)
                return False
            taken = constraint.take(token)
        self._choose_again = False
        self._banned.clear()
        self._written.append(taken)
        if self._rest and self._spelling is not None:
            self._rest = self._rest[len(self._spelling.of(taken)) :]
        self._finished = self._state.append(taken, {*self._end_ids, _NO_ID})
        return not self._finished and taken == token
