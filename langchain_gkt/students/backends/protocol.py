"""The interface between a student and the engine that runs its model.

The chat template, the seam to a begun answer, the safety against control tokens, the parsing of
tool calls and the truncation of long prompts belong to the student, the same for all engines.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.engine.token_healing import TokenSpelling
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail

Feature = Literal["seed", "response_format"]
"""Features that a call may ask for and not every engine has."""

__all__ = ["Backend", "Feature", "PrefillHandle", "RemoteBackend", "refuse_unsupported"]


class Backend(Protocol):
    """An engine with one loaded model. Safe to call from any thread and event loop.

    A copy of a student shares it (``__deepcopy__`` returns itself), and a forked child starts
    over with no requests. It need not be picklable if its model can be loaded from a path.
    """

    name: str
    """Its name as a value of the field ``backend``."""
    unsupported: Mapping[Feature, str]
    """Features that this engine lacks, each with the reason and the fix."""
    first_token_detail: FirstTokenDetail
    """What `first_tokens` reports."""
    tokenizer: Any
    """A fast Hugging Face tokenizer, with the chat template."""
    end_ids: set[int]
    """Ids that end an answer."""
    window: ContextWindow
    """How many tokens the model reads and writes."""

    @property
    def description(self) -> str:
        """What runs the model, for people: engine, version, weights' type, device."""
        ...

    @property
    def closed(self) -> bool:
        """Whether requests are refused, because `close` was called."""
        ...

    @property
    def vocabulary(self) -> int:
        """Length of the model's logits."""
        ...

    @property
    def spelling(self) -> TokenSpelling:
        """The bytes of each token. It also finds where a begun answer has to be reopened."""
        ...

    @property
    def repeatable(self) -> Literal["always", "alone", "never"]:
        """When equal greedy answers can be relied on: always, alone (not in a batch) or never."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest that differs between two sets of weights or two tokenizers."""
        ...

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Prefill a prompt while the caller waits for something else. Never raises.

        Args:
            prompt: Ids of the conversation, with the header of the answer.

        Returns:
            A handle. Closing it stops, unless the request with this prompt has come.
        """
        ...

    def generate(
        self, request: Request, cancelled: threading.Event, *, stream: bool = True
    ) -> Generator[TokenChunk, None, None]:
        """Generate one answer.

        The end of ``request.answer_prefix`` that its seam reopens is neither shown nor counted.

        Args:
            request: What to continue, and how.
            cancelled: Ends the generation within one step when set.
            stream: Whether to yield text as soon as it is certain, or once, at the end.

        Yields:
            Chunks of text. The last one has a finish reason unless the request was cancelled.
            Closing the generator cancels.

        Raises:
            StudentError: If the engine fails, the request does not fit, too many wait already
                or the engine is closed.
        """
        ...

    def agenerate(
        self, request: Request, *, stream: bool = True
    ) -> AsyncGenerator[TokenChunk, None]:
        """Do what `generate` does, on the event loop."""
        ...

    def first_tokens(self, request: Request) -> list[FirstToken]:
        """Return how likely each token of an answer was, and the entropy of its distribution.

        Args:
            request: A request. Its constraint, stop strings and seam are ignored.

        Returns:
            The tokens, the end token included.

        Raises:
            StudentError: As `generate` does.
        """
        ...

    async def afirst_tokens(self, request: Request) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        ...

    def close(self) -> None:
        """End its threads and free its memory. Requests that still run get a StudentError."""
        ...


@runtime_checkable
class RemoteBackend(Backend, Protocol):
    """An engine in another process, which may have gone away."""

    def refuse_unreachable(self) -> None:
        """Refuse if it cannot be reached now.

        Raises:
            StudentError: If so.
        """
        ...


def refuse_unsupported(backend: Backend, feature: Feature, value: object) -> None:
    """Refuse what a call asks for if its engine cannot do it.

    Args:
        backend: The student's engine.
        feature: What the call asks for.
        value: The value of the field, for the message.

    Raises:
        ValueError: If the engine cannot. It says why and what to do instead.
    """
    if feature in backend.unsupported:
        asked = "" if value is None else f"={value!r}"
        raise ValueError(
            f"{feature}{asked} is not supported by a student with backend={backend.name!r}: "
            f"{backend.unsupported[feature]}"
        )
