"""A request to an engine, and the chunks that come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from langchain_gkt.students.engine.token_healing import Seam

if TYPE_CHECKING:
    import torch


class Constraint(Protocol):
    """Chooses every token of one answer, with the request's own sampler.

    The engine calls it on its own thread, in order, for one answer only.
    """

    @property
    def done(self) -> bool:
        """Whether the answer is complete and ends here."""
        ...

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        """Choose the next token.

        Args:
            logits: Float32 logits of the next token, shape (vocabulary,). Do not change them.
            pick: The request's sampler: takes logits with forbidden tokens at minus infinity.

        Returns:
            The token's id. An end token if the answer may end here.
        """
        ...


@runtime_checkable
class TextConstraint(Constraint, Protocol):
    """A constraint that also serves engines whose logits cannot be masked.

    Such an engine generates freely and asks whether a constraint `accepts` its tokens. If not, it
    chooses again among the ``allowed`` ones. It has the constraint `take` each.
    """

    @property
    def allowed(self) -> list[int]:
        """The tokens that may come next."""
        ...

    @property
    def forced(self) -> list[int]:
        """The tokens that have to come next, if there is no choice of text. Else none."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether the text so far is a whole answer."""
        ...

    def accepts(self, tokens: list[int]) -> bool:
        """Whether tokens may come next."""
        ...

    def take(self, token: int) -> int:
        """Advance by a token that may come next.

        Returns:
            The token, or one in its place that lets the answer end in time.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer to continue.

    Attributes:
        constraint: What the answer may look like. None for anything. It holds the state of one
            answer, so every request needs its own.
        schema: The JSON schema of the whole answer, for servers that enforce one themselves. None
            if there is none, or a part of the answer is there already.
        seam: How the model writes the end of ``answer_prefix`` again. None to keep it as it is.
            What is written again is neither shown nor counted.
    """

    prompt: list[int]  # ids of the conversation, with the header of the answer
    answer_prefix: list[int]  # ids of the answer's beginning. May be empty
    max_tokens: int  # to generate, at most
    temperature: float = 0.0  # 0 for greedy decoding
    top_p: float = 1.0  # nucleus sampling threshold in (0, 1]
    seed: int | None = None  # of this request's own generator. None for a random one
    stop: tuple[str, ...] = ()  # strings that end the answer. They do not appear in it
    constraint: Constraint | None = None
    schema: dict[str, Any] | None = None
    keep_special: bool = False  # control tokens stay in the text
    seam: Seam | None = None

    @property
    def kept(self) -> list[int]:
        """Ids of the answer prefix that the model reads and does not write again."""
        return self.answer_prefix if self.seam is None else self.seam.kept


@dataclass(frozen=True, kw_only=True)
class TokenChunk:
    """The next part of an answer."""

    text: str  # may be empty
    tokens: int  # generated so far, the end-of-turn token included
    finish_reason: str | None = None  # "stop" or "length" on the last chunk
