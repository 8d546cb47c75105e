"""Answers of llama.cpp that are held to a constraint.

llama.cpp has grammars of its own, but none that can begin in the middle of an answer, where a
teacher has left it. So it writes freely, and a token that the constraint does not accept is
chosen again among those it allows. That is the choice that masked logits would have given:
greedily it is the best allowed token, and a drawn token keeps its share among the allowed ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.request import TextConstraint, TokenChunk
from langchain_gkt.students.engine.token_healing import TokenSpelling

Take = Callable[[dict[str, Any]], bool]
Complete = Callable[[dict[str, Any], Take], None]
"""Has llama.cpp complete a body, and stops it when its chunks have been enough."""

# More than any two logits differ by; few enough that their differences keep their digits.
_LIFT = 500.0


class ConstrainedAnswer:
    """Writes one answer that is held to a constraint."""

    def __init__(
        self, complete: Complete, spelling: TokenSpelling, encode: Callable[[str], list[int]]
    ) -> None:
        """Prepare.

        Args:
            complete: Has llama.cpp complete a body.
            spelling: The bytes of its tokens.
            encode: Tokenises text of the answer.
        """
        self._complete, self._spelling, self._encode = complete, spelling, encode
        self._tokens = 0
        self._ids: list[int] = []

    def write(
        self,
        body: dict[str, Any],
        constraint: TextConstraint,
        max_tokens: int,
        show: Callable[[TokenChunk], None],
        is_cancelled: Callable[[], bool],
    ) -> TokenChunk | None:
        """Write the answer.

        Args:
            body: The request to llama.cpp.
            constraint: What the answer may look like.
            max_tokens: Most tokens.
            show: Takes text that is certain.
            is_cancelled: Whether nobody waits any more.

        Returns:
            The last chunk; None if it was cancelled.

        Raises:
            StudentError: If the constraint allows nothing that the student can write.
        """
        last: TokenChunk | None = None
        refused = False

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal last, refused
            if is_cancelled():
                return True
            if "prompt_progress" in chunk:
                return False
            text, told = chunk["choices"][0]["text"], chunk.get("__verbose", {})
            reason = chunk["choices"][0]["finish_reason"]
            written = begun_at + told.get("tokens_predicted", 0)
            if text and not constraint.accepts(text):
                refused = True
                return True
            if text:
                forced = constraint.follow(text, written)
                if forced is None:
                    self._tokens = written
                    known = told.get("tokens") or []
                    self._ids += known if self._spells(known, text) else self._encode(text)
                else:
                    self._tokens += 1
                    self._ids.append(forced)
                    text = self._spelling.of(forced).decode()
                if constraint.done:
                    last = TokenChunk(text=text, tokens=self._tokens, finish_reason="stop")
                    return True
                show(TokenChunk(text=text, tokens=self._tokens))
                if forced is not None:
                    return True
            if reason == "stop" and not constraint.may_end:
                refused = True
                return True
            if reason is not None:
                last = TokenChunk(text="", tokens=self._tokens, finish_reason=reason)
            return last is not None

        while last is None and not is_cancelled():
            begun_at, refused_before, refused = self._tokens, refused, False
            left = max_tokens - self._tokens
            if left < 1:
                return TokenChunk(text="", tokens=self._tokens, finish_reason="length")
            step = {**body, "prompt": [*body["prompt"], *self._ids], "n_predict": left}
            if refused_before:
                step |= {"n_predict": 1, "logit_bias": self._bias(constraint)}
            self._complete(step, take)
            if refused_before and refused:
                raise StudentError(
                    "the constraint on the answer forbids every token the student has; the "
                    "student's vocabulary cannot write what is asked for"
                )
            if last is not None and refused_before and last.finish_reason == "length":
                last = None  # it was asked for this token alone
        return last

    def _spells(self, ids: list[int], text: str) -> bool:
        return b"".join(map(self._spelling.of, ids)) == text.encode()

    def _bias(self, constraint: TextConstraint) -> list[list[Any]]:
        # Half a character could not be told from the next request's text.
        whole = [t for t in constraint.allowed if self._is_text(t)]
        return [[token, _LIFT] for token in whole]

    def _is_text(self, token: int) -> bool:
        try:
            self._spelling.of(token).decode()
        except UnicodeDecodeError:
            return False
        return True
