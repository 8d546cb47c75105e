"""Constrains an answer to a grammar, token by token, and to its maximum number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import llguidance
import numpy as np
import numpy.typing as npt

from langchain_gkt.structured_output.closing import ClosingOrder
from langchain_gkt.structured_output.grammar import valid_prefix

if TYPE_CHECKING:
    import torch

_KEPT_LENGTHS = 256
# A text that takes more tokens to end than this counts as endless.
_MAX_CLOSING_TOKENS = 4096


class GrammarTokenizer:
    """The grammar engine's view of one tokenizer. Costly to make, so made once."""

    def __init__(self, tokenizer: Any, end_ids: set[int], size: int) -> None:
        """Read a fast Hugging Face tokenizer.

        Args:
            tokenizer: The tokenizer. Raises a `ValueError` if the grammar engine cannot read it.
            end_ids: Ids that end an answer.
            size: Length of the model's logits.
        """
        import llguidance.hf  # it imports transformers

        if not end_ids:
            raise ValueError("the student has no end token; structured output needs one")
        try:
            self.tokens = llguidance.hf.from_tokenizer(
                tokenizer, n_vocab=size, eos_token=sorted(end_ids)
            )
        except ValueError as error:
            raise ValueError(
                f"the student's tokenizer cannot be held to a grammar: {error}"
            ) from error
        self.end_ids = end_ids
        self._closing = ClosingOrder(self.tokens, end_ids, size)
        self._shortest: dict[bytes, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> GrammarTokenizer:
        """Share it, because it never changes."""
        return self

    def matcher(self, grammar: str) -> llguidance.LLMatcher:
        """Return the state of a text that has not begun."""
        # get_error() reports errors. The engine would print them on stderr, too.
        return llguidance.LLMatcher(self.tokens, grammar, log_level=0)

    def spell(self, data: bytes) -> list[int]:
        """Return tokens that spell some bytes."""
        return list(self.tokens.tokenize_bytes(data))

    def is_added(self, text: str) -> bool:
        """Whether a text is one added token of the vocabulary, which no bytes can spell."""
        ids = self.tokens.tokenize_str(text)
        return len(ids) == 1 and bool(self.tokens.is_special_token(ids[0]))

    def shortest_answer(self, grammar: str) -> int:
        """Return the tokens of a grammar's shortest text. Raises a `ValueError` if none ends."""
        key = blake2b(grammar.encode()).digest()  # a grammar may be megabytes
        if (length := self._shortest.get(key)) is None:
            length = len(_required_end(self.shortest_end(self.matcher(grammar))))
            if len(self._shortest) >= _KEPT_LENGTHS:
                self._shortest.clear()
            self._shortest[key] = length
        return length

    def shortest_end(self, matcher: llguidance.LLMatcher, rest: bytes = b"") -> list[int] | None:
        """Return tokens, preferably few, that bring a text to its end. None if none are found.

        Args:
            matcher: The text's state. It does not change.
            rest: Bytes to write first, which the grammar allows next.
        """
        trial, path = matcher.deep_copy(), self.spell(rest)
        trial.consume_tokens(path)
        while not (trial.is_accepting() or trial.is_stopped()):
            allowed = allowed_tokens(trial)
            if len(path) >= _MAX_CLOSING_TOKENS or not allowed.any():
                return None
            token = self._closing.first(allowed)
            if token in self.end_ids:  # of a schema that refers only to itself
                return None
            path.append(token)
            trial.consume_token(token)
        return path


def allowed_tokens(matcher: llguidance.LLMatcher) -> npt.NDArray[np.bool_]:
    """Return for each token of the vocabulary whether it may come next."""
    # One byte per token. llguidance.torch would compile its kernel at the first call, for 20 s.
    bias: npt.NDArray[np.uint8] = np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8)
    return bias.astype(bool)


def _required_end(end: list[int] | None) -> list[int]:
    if end is None:
        raise ValueError(
            "response_format or a tool's parameters cannot be enforced: no answer was found that "
            f"ends within {_MAX_CLOSING_TOKENS} tokens. Lower minItems or minLength, give what "
            "refers to itself an end (null, an empty list, a property that may be left out), or "
            "have the teacher alone write the answer: method='function_calling'"
        )
    return end


class GrammarConstraint:
    """Constrains one answer to a grammar, and makes it end within its tokens."""

    def __init__(
        self,
        tokenizer: GrammarTokenizer,
        grammar: str,
        *,
        begun: str,
        max_tokens: int,
        spelled: bytes = b"",
        spelled_tokens: int = 0,
        may_be_cut: bool = False,
    ) -> None:
        """Start at the end of a prefix.

        Args:
            tokenizer: The student's tokenizer.
            grammar: A compiled grammar.
            begun: The part of the answer that is already written.
            max_tokens: Tokens that are left for the rest. If ``begun`` cannot be finished with
                them, it gets as many as it needs. See the attribute of that name.
            spelled: The end of ``begun``, in bytes, if the first tokens spell it again. The logits
                then leave them no other choice.
            spelled_tokens: Tokens for that, besides ``max_tokens``.
            may_be_cut: Whether the limit may truncate the answer. If so, no room is kept for its
                end.

        Raises:
            ValueError: If the prefix breaks the grammar, or no whole answer fits or ends.
        """
        self._tokenizer = tokenizer
        self._matcher = tokenizer.matcher(grammar)
        if error := self._matcher.get_error():
            raise ValueError(f"the grammar cannot be used: {error}")
        data = begun.encode()
        ids, whole = tokenizer.spell(data), self._matcher.deep_copy()
        if whole.try_consume_tokens(ids) != len(ids):
            fits, _ = valid_prefix(begun, grammar)
            raise ValueError(
                f"the answer's beginning breaks the schema after {fits[-30:]!r}; it begins "
                f"{begun[:60]!r}"
            )
        needed = len(_required_end(tokenizer.shortest_end(whole)))
        if needed > max_tokens and not begun:
            raise ValueError(
                f"max_tokens leaves {max_tokens} tokens, but the shortest answer of this schema "
                f"takes {needed} more; raise max_tokens"
            )
        self._matcher.consume_tokens(tokenizer.spell(data[: len(data) - len(spelled)]))
        self._rest = spelled
        longer = max(0, len(tokenizer.spell(spelled)) - spelled_tokens)
        # A teacher was paid for the prefix. A few extra tokens are better than half an object.
        self.max_tokens = max(max_tokens, needed + longer)
        self._left = self.max_tokens + spelled_tokens
        self._needed_at_most = needed
        # One token opens at most what the grammar itself spells out.
        self._growth = 0 if may_be_cut else len(tokenizer.tokens.tokenize_str(grammar))

    @property
    def done(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        """Sample the next token from the logits of those that the grammar allows. See `take`."""
        import torch

        forbidden = torch.from_numpy(~allowed_tokens(self._matcher)).to(logits.device)
        return self.take(pick(logits.masked_fill(forbidden, -torch.inf)))

    @property
    def allowed(self) -> list[int]:
        """The tokens that may come next."""
        return [int(token) for token in np.flatnonzero(allowed_tokens(self._matcher))]

    @property
    def forced(self) -> list[int]:
        """The tokens that have to come next, if the grammar leaves no choice of text."""
        return [] if self._rest else list(self._matcher.compute_ff_tokens())

    @property
    def may_end(self) -> bool:
        """Whether the text so far is a whole answer."""
        return not self._rest and bool(self._matcher.is_accepting())

    def accepts(self, tokens: list[int]) -> bool:
        """Whether tokens may come next."""
        return bool(self._matcher.validate_tokens(tokens) == len(tokens))

    def take(self, token: int) -> int:
        """Advance by a token that may come next, and return it.

        If it would leave too few tokens to end the answer, one that ends it soonest replaces it.
        """
        self._left -= 1
        self._needed_at_most += self._growth
        if self._rest or self._needed_at_most > self._left:
            token = self._keep_room_to_end(token)
        self._matcher.consume_token(token)
        return token

    def _keep_room_to_end(self, token: int) -> int:
        """Return the token if the answer can still end in time after it, else one that ends it."""
        trial = self._matcher.deep_copy()
        trial.consume_token(token)
        rest, left = self._after(token)
        end = self._tokenizer.shortest_end(trial, rest)
        if end is None or len(end) > left:
            way = _required_end(self._tokenizer.shortest_end(self._matcher, self._rest))
            token, *end = way or [min(self._tokenizer.end_ids)]
            rest, left = self._after(token)
        self._rest, self._left, self._needed_at_most = rest, left, len(end)
        return token

    def _after(self, token: int) -> tuple[bytes, int]:
        """Return the bytes to spell after a token, and how many tokens are left then."""
        if not self._rest:
            return b"", self._left
        data = self._tokenizer.tokens.decode_bytes([token])
        if rest := self._rest[len(data) :]:
            return rest, self._left
        is_new = len(data) > len(self._rest)
        return b"", min(self._left, self.max_tokens - is_new)
