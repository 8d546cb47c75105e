"""One answer of llama.cpp: its request, and its chunks, free or under a constraint.

llama.cpp has grammars of its own, but none that can begin in the middle of an answer, where a
teacher has left it. So it generates freely. If the constraint rejects a token, llama.cpp chooses
again among the tokens that it allows. Masked logits would have given the same choice: greedy
decoding takes the best allowed token, and a drawn token keeps its share among the allowed ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.failures import FORBIDDEN
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import Request, TextConstraint
from langchain_gkt.students.engine.token_healing import TokenSpelling, is_text
from langchain_gkt.texts.stop_strings import StopStringFilter

_ESCAPED = re.compile(r"[\x00-\x1f\x7f\"\\\\]")
_MAX_SEED = 2**32 - 1  # this value itself means a random seed
# More than any two logits differ by. Small enough that their differences keep their digits.
_LIFT = 500.0

Take = Callable[[dict[str, Any]], bool]
"""Takes a chunk of llama.cpp. Returns whether it is to stop."""
Complete = Callable[[dict[str, Any], Take], None]
"""Has llama.cpp complete a body."""


def completion_request(request: Request, marks: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return the body of llama.cpp's request for an answer, in token ids.

    No text is spelled again with the ``marks``, the ids and texts of the added tokens.
    """
    body: dict[str, Any] = {
        "prompt": [*request.prompt, *request.kept],
        "n_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "samplers": ["temperature", "top_p"],
        "stream": True,
        "verbose": True,  # each chunk then says how many tokens there are
        "return_progress": True,  # a prompt can be cancelled between two parts of it
        "cache_prompt": True,
    }
    if request.temperature == 0:
        body |= {"top_k": 1, "samplers": ["top_k"]}  # no probabilities of a whole vocabulary
    if request.seed is not None:
        body["seed"] = request.seed % _MAX_SEED
    if request.keep_special:
        body["preserved_tokens"] = [text for _, text in marks]
    if request.seam is not None and request.constraint is None:
        text = request.seam.spelled.decode()
        body["grammar"] = f"root ::= {_literal(text)} [^\\x00]*"
        body["logit_bias"] = [
            [token, False]
            for token, mark in marks
            if mark.startswith(text) or text.startswith(mark)
        ]
        body["n_predict"] += request.seam.opened  # as long as the other engines write
    return body


def _literal(text: str) -> str:
    """Write a text as a literal of a llama.cpp grammar."""
    return '"' + _ESCAPED.sub(lambda match: f"\\x{ord(match[0]):02x}", text) + '"'


class AnswerText:
    """Reads the chunks of a free answer. It hides the seam, and ends at a stop string."""

    def __init__(self, state: RequestState) -> None:
        """Start before the first chunk."""
        seam = state.request.seam
        self._state, self._stop = state, StopStringFilter(state.request.stop)
        self._unseen = len(seam.spelled.decode()) if seam else 0

    def read(self, chunk: dict[str, Any]) -> bool:
        """Take a chunk of llama.cpp's completion stream. Return whether it is to stop."""
        state = self._state
        if "prompt_progress" in chunk or state.is_cancelled:
            return state.is_cancelled
        choice = chunk["choices"][0]
        state.count = max(state.count, chunk.get("__verbose", {}).get("tokens_predicted", 0))
        new, reason = choice["text"], choice["finish_reason"]
        hidden = min(self._unseen, len(new))
        self._unseen -= hidden
        if hidden and hidden == len(new):
            state.repeated = state.count
        text, stopped = self._stop.feed(new[hidden:])
        if stopped:
            return state.end(text, "stop")
        if reason is not None or state.is_at_limit:
            return state.end(text + self._stop.flush(), reason or "length")
        if text:
            state.show(text)
        return False


class ConstrainedAnswer:
    """Writes one answer under a constraint."""

    def __init__(
        self,
        state: RequestState,
        constraint: TextConstraint,
        spelling: TokenSpelling,
        encode: Callable[[str], list[int]],
    ) -> None:
        """Start before the first token."""
        self._state, self._constraint = state, constraint
        self._spelling, self._encode = spelling, encode
        self._ids: list[int] = []
        self._choose_again = False

    @property
    def _rest(self) -> bytes:
        """What is left of the begun text's end, which the first tokens spell again."""
        return self._state.healing.rest if self._state.healing else b""

    def write(self, body: dict[str, Any], complete: Complete) -> None:
        """Write the answer, from the body of its request to llama.cpp.

        Raises:
            StudentError: If the constraint allows nothing that the student can write.
        """
        state, request = self._state, self._state.request
        opened = request.seam.opened if request.seam else 0
        while not (state.ended or state.is_cancelled):
            written = len(self._ids)
            left = request.max_tokens + opened - written
            if left < 1:
                state.end("", "length")
                return
            step = {**body, "prompt": [*body["prompt"], *self._ids], "n_predict": left}
            single = self._choose_again or bool(self._rest)
            if single:
                step |= {"n_predict": 1, "logit_bias": self._bias()}
            self._choose_again = False
            complete(step, partial(self._read, single))
            is_over = state.ended or state.is_cancelled
            if single and len(self._ids) == written and not is_over:
                raise StudentError(FORBIDDEN)

    def _read(self, single: bool, chunk: dict[str, Any]) -> bool:
        """Take a chunk of llama.cpp. Return whether it is to stop."""
        state = self._state
        if "prompt_progress" in chunk or state.is_cancelled:
            return state.is_cancelled
        choice = chunk["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
        if text:
            tokens = self._tokens_of(chunk, text)
            if not self._constraint.accepts(tokens):
                self._choose_again = True
                return True
            taken = [self._constraint.take(token) for token in tokens[:1]]
            while len(taken) < len(tokens) and taken[-1] == tokens[len(taken) - 1]:
                taken.append(self._constraint.take(tokens[len(taken)]))
            new = self._append(taken)
            if self._constraint.done:
                return state.end(new, "stop")
            if new:
                state.show(new)
            return taken != tokens
        if reason == "stop" and not self._constraint.may_end:
            self._choose_again = True
        elif reason == "stop":
            state.count += 1  # the end token
            return state.end("", "stop")
        elif reason is not None and not single:
            return state.end("", reason)
        return False

    def _tokens_of(self, chunk: dict[str, Any], text: str) -> list[int]:
        known = chunk.get("__verbose", {}).get("tokens") or []
        # llama.cpp leaves out the first tokens of a character.
        whole = b"".join(map(self._spelling.of, known)) == text.encode()
        return list(known) if whole else self._encode(text)

    def _append(self, tokens: list[int]) -> str:
        """Append tokens to the answer. Return the new part of their text."""
        state, known = self._state, len(self._rest)
        self._ids += tokens
        state.count += len(tokens)
        if state.healing is not None:
            state.repeated += sum(map(state.healing.take, tokens))
        data = b"".join(map(self._spelling.of, tokens))
        return data[known:].decode(errors="ignore")

    def _bias(self) -> list[list[Any]]:
        """Lift the tokens that may come next above all others."""
        allowed = self._constraint.allowed
        if self._rest:
            spells = set(self._spelling.candidates(self._rest))
            allowed = [token for token in allowed if token in spells]
        # Half a character could not be distinguished from the next request's text.
        return [[token, _LIFT] for token in allowed if is_text(self._spelling.of(token))]
