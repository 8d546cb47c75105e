"""The state of a request while the engine generates its answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langchain_gkt.students.engine.delivery import Deliver
from langchain_gkt.students.engine.requests.detokenizer import Detokenizer
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.engine.token_healing import Healing

if TYPE_CHECKING:
    import torch

    from langchain_gkt.students.engine.model_runner import UnbatchedState
    from langchain_gkt.students.engine.prefill import PrefillState


@dataclass(eq=False, kw_only=True)
class RequestState:
    """One request, from the queue to its last token."""

    request: Request
    ids: list[int]  # to prefill: the prompt and the beginning of the answer
    deliver: Deliver  # called on the scheduler's thread
    cancelled: threading.Event  # ends the request within one step when set
    started: threading.Event = field(default_factory=threading.Event)  # it has left the queue
    detokenizer: Detokenizer
    stream: bool = True  # text is delivered as soon as it is certain, not once, at the end
    closed: bool = False  # the caller reads no more chunks
    ended: bool = False  # the last chunk was delivered
    token: int = -1  # chosen last
    count: int = 0  # tokens generated
    repeated: int = 0  # how many of them only spell the answer prefix's end again
    healing: Healing | None = None  # constrains the first tokens to that end
    generator: torch.Generator | None = None  # source of randomness. None for greedy decoding
    prefill: PrefillState | None = None  # while the ids are being prefilled
    unbatched: UnbatchedState | None = None  # the model's cache, outside the batch
    _texts: list[str] = field(default_factory=list)

    @property
    def max_length(self) -> int:
        """Maximum tokens that the request may hold in the KV cache."""
        return len(self.request.prompt) + len(self.request.answer_prefix) + self.request.max_tokens

    @property
    def new_tokens(self) -> int:
        """Tokens that the answer has grown by."""
        return self.count - self.repeated

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.closed or self.cancelled.is_set()

    def close(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.closed = True

    def append(self, token: int, end_ids: set[int]) -> bool:
        """Append a chosen token to the answer and deliver the text it makes certain.

        Returns:
            Whether the answer is finished. If so, its last chunk has been delivered.
        """
        self.token = token
        self.count += 1
        if self.healing is not None and self.healing.take(token):
            self.repeated += 1
        if token in end_ids:
            return self.end(self.detokenizer.flush(), "stop")
        text, stopped = self.detokenizer.add(token)
        if stopped:
            return self.end(text, "stop")
        if self.request.constraint is not None and self.request.constraint.done:
            return self.end(text + self.detokenizer.flush(), "stop")
        if self.is_at_limit:
            return self.end(text + self.detokenizer.flush(), "length")
        if text:
            self.show(text)
        return False

    @property
    def is_at_limit(self) -> bool:
        """Whether the answer may have no more tokens."""
        # An end spelled with more tokens than before must not outgrow the KV cache.
        full = len(self.request.prompt) + len(self.request.kept) + self.count >= self.max_length
        return full or self.new_tokens >= self.request.max_tokens

    def show(self, text: str) -> None:
        """Deliver text that is certain, or keep it for the end if nobody reads a stream."""
        if self.stream:
            self.deliver(TokenChunk(text=text, tokens=self.new_tokens))
        else:
            self._texts.append(text)

    def finish(self, reason: str) -> None:
        """End the answer where it is, and deliver its last chunk."""
        self.end(self.detokenizer.flush(), reason)

    def end(self, text: str, reason: str) -> bool:
        """End the answer with a text, and deliver its last chunk. Return True."""
        self.ended = True
        text = "".join([*self._texts, text])
        self.deliver(TokenChunk(text=text, tokens=self.new_tokens, finish_reason=reason))
        return True
