"""What is asked of a student, what it gives back, and the text side of one answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from tokenizers.decoders import DecodeStream

from langchain_gkt.students.engine.lookup import Lookup


class Constraint(Protocol):
    """What an answer may look like: it chooses every token, with the row's own sampler.

    It is asked on the engine's own thread, in order, for one answer only.
    """

    @property
    def done(self) -> bool:
        """Whether the answer is complete and ends here."""
        ...

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        """Choose the next token.

        Args:
            logits: Float32 logits of the next token, shape (vocabulary,); not to be changed.
            pick: The row's sampler: takes logits with forbidden tokens at minus infinity.

        Returns:
            The token's id; an end token where the answer may end.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer to continue.

    Attributes:
        prompt: Ids of the conversation, with the header of the answer.
        prefill: Ids of the answer's beginning; may be empty.
        max_tokens: Most tokens to generate.
        temperature: 0 for greedy decoding.
        top_p: Nucleus sampling threshold in (0, 1].
        seed: Seed of this request's own generator, or None for a random one.
        stop: Strings that end the answer; they do not appear in it.
        constraint: What the answer may look like; None for anything. It holds the state of
            one answer, so every request needs its own.
        keep_special: Whether control tokens stay in the text.
    """

    prompt: list[int]
    prefill: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    keep_special: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a worker may use.

    Attributes:
        max_batch_size: Most rows that decode together.
        max_queue: Most requests that wait beside them.
        kv_tokens: Most tokens of KV cache, padding included (a little slack aside); None for
            2 GiB of them, or the model's context if that is more.
        prefix_cache_bytes: Most bytes of KV cache kept of prompts that were seen.
        prompt_lookup: Most tokens guessed from the text so far, and checked in one step, while
            a greedy row decodes alone; 0 for none.
    """

    max_batch_size: int = 16
    max_queue: int = 1024
    kv_tokens: int | None = None
    prefix_cache_bytes: int = 256 * 2**20
    prompt_lookup: int = 0

    def __post_init__(self) -> None:
        """Refuse what would admit nobody."""
        for name, least in (
            ("max_batch_size", 1),
            ("max_queue", 1),
            ("prefix_cache_bytes", 0),
            ("prompt_lookup", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.kv_tokens is not None and self.kv_tokens < 1:
            raise ValueError(f"kv_tokens={self.kv_tokens} must be at least 1, or None")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: New text; may be empty.
        tokens: Tokens generated so far, the end-of-turn token included.
        finish_reason: ``stop`` or ``length`` on the last piece, else None.
    """

    text: str
    tokens: int
    finish_reason: str | None = None


class StopFilter:
    """Lets text through up to the first stop string, wherever its tokens are split."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        """Begin with nothing held back.

        Args:
            stop: The stop strings.
        """
        self._stop = tuple(filter(None, stop))
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Take new text.

        Args:
            text: Text that follows what was fed before.

        Returns:
            Text that can be shown, and whether a stop string was reached.
        """
        self._held += text
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            return self._held[: min(found)], True
        # Keep back the longest ending that may still grow into a stop string.
        keep = max(
            (
                size
                for stop in self._stop
                for size in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(out) :]
        return out, False

    def flush(self) -> str:
        """Return what was held back: no stop string came."""
        return self._held


_UNFINISHED = "\ufffd"
"""What a tokenizer shows in place of half a character."""

Deliver = Callable[[Piece | Exception | None], None]
"""Takes the pieces of an answer; None where it was cancelled, an exception where it failed."""


@dataclass(eq=False)
class Row:
    """One answer in the making: what the worker knows of a request.

    Attributes:
        request: What is asked.
        ids: Ids to prefill: the prompt and the beginning of the answer.
        deliver: Where the pieces go; called on the worker's thread.
        cancelled: Ends the row within one step when set.
        whole: Whether the text is delivered once, in the last piece.
        done: How many of the ids are in the KV cache.
        token: The token chosen last.
        count: Tokens generated.
        state: Whatever the forward pass keeps for this row.
        lookup: Guesses the next tokens, or None.
    """

    request: Request
    ids: list[int]
    deliver: Deliver
    cancelled: threading.Event
    whole: bool = False
    done: int = 0
    token: int = -1
    count: int = 0
    state: Any = None
    generator: torch.Generator | None = None
    lookup: Lookup | None = None
    closed: bool = False
    _shown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin the text where the answer begins."""
        self._decoder: DecodeStream | None = None
        self._held: list[int] = []
        self._stop = StopFilter(self.request.stop)

    @property
    def length(self) -> int:
        """Tokens the row may come to hold in the KV cache."""
        return len(self.ids) + self.request.max_tokens

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for this row any more."""
        return self.closed or self.cancelled.is_set()

    def take(self, token: int, end_ids: set[int], backend_tokenizer: Any) -> bool:
        """Take a chosen token and deliver the text it makes certain.

        Args:
            token: Its id.
            end_ids: Ids that end an answer.
            backend_tokenizer: Turns ids into text.

        Returns:
            Whether the row is finished; its last piece has then been delivered.
        """
        self.token = token
        self.count += 1
        if self.lookup is not None:
            self.lookup.add(token)
        if token in end_ids:
            return self._finish(self._rest(backend_tokenizer), "stop")
        if self._decoder is None:
            self._decoder = self._begin(backend_tokenizer)
        text = self._decoder.step(backend_tokenizer, token) or ""
        self._held = [] if text else [*self._held, token]
        text, stopped = self._stop.feed(text)
        if stopped:
            return self._finish(text, "stop")
        if self.request.constraint is not None and self.request.constraint.done:
            return self._finish(text + self._rest(backend_tokenizer), "stop")
        if self.count >= self.request.max_tokens:
            return self._finish(text + self._rest(backend_tokenizer), "length")
        if text and self.whole:
            self._shown.append(text)
        elif text:
            self.deliver(Piece(text=text, tokens=self.count))
        return False

    def _begin(self, backend_tokenizer: Any) -> DecodeStream:
        # The beginning of the answer comes first in the stream: a tokenizer that writes its
        # blanks in front of words then knows whether the next word needs one.
        ids, skip = list(self.request.prefill), not self.request.keep_special
        if backend_tokenizer.decode(ids, skip_special_tokens=skip).endswith(_UNFINISHED):
            ids = []  # the stream would wait for the rest of it, and then repeat it all
        return DecodeStream(ids=ids, skip_special_tokens=skip)

    def _rest(self, backend_tokenizer: Any) -> str:
        """Return the text that was held back: by the stop strings, and as half a character."""
        if not self._held:
            return self._stop.flush()
        skip = not self.request.keep_special
        tail = backend_tokenizer.decode(self._held, skip_special_tokens=skip)
        text, stopped = self._stop.feed(tail.rstrip(_UNFINISHED))
        return text if stopped else text + self._stop.flush()

    def _finish(self, text: str, reason: str) -> bool:
        text = "".join([*self._shown, text])
        self.deliver(Piece(text=text, tokens=self.count, finish_reason=reason))
        return True
