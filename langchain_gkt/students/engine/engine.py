"""The torch side of a student: one model, its worker, and the ways to ask it.

Requests of any number of threads and event loops are decoded together by the worker.
Encoder-decoder students, and models without a KV cache of the usual kind, take the simple
path: their rows run one after the other, step by step, and share no prefixes.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
from collections.abc import AsyncGenerator, Generator
from functools import cached_property
from typing import Any

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.model_runner import Forward
from langchain_gkt.students.engine.request import (
    Constraint,
    Limits,
    Piece,
    Request,
    Row,
    StopFilter,
)
from langchain_gkt.students.engine.scheduler import Worker

__all__ = ["Constraint", "Engine", "Limits", "Piece", "Prefill", "Request", "StopFilter"]

_TRUNCATE = ", or set on_long_prompt='truncate' (student_kwargs of a chain)"


class Prefill:
    """A prompt that is being prefilled ahead of its request.

    As a context manager it frees what no request has taken over.
    """

    def __init__(self, worker: Worker, ids: list[int]) -> None:
        """Start.

        Args:
            worker: The worker of the model.
            ids: Ids of the prompt.
        """
        self._worker = worker
        self._ahead = worker.prefill_ahead(ids)

    @property
    def done(self) -> bool:
        """Whether nothing is left to prefill."""
        return self._ahead.done

    def close(self) -> None:
        """Stop, and free the KV cache; a request that has taken it over keeps it."""
        self._worker.forget(self._ahead)

    def __enter__(self) -> Prefill:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


class Engine:
    """A loaded model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, limits: Limits | None = None) -> None:
        """Take a model for inference.

        Args:
            model: A transformers model with a language-modelling head.
            tokenizer: Its tokenizer, of the fast kind.
            limits: How many requests and how much memory; None for the usual.

        Raises:
            StudentError: If the tokenizer is not a fast one.
        """
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise StudentError(
                f"the student's tokenizer ({type(tokenizer).__name__}) is not a fast one; load it "
                "with AutoTokenizer, or convert it to a tokenizer.json"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        self.end_ids = {end for end in [*ends, tokenizer.eos_token_id] if end is not None}
        config = model.config.get_text_config()
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        # T5-type models have relative positions and no hard limit of their own.
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.limits = limits or Limits()
        self.worker = Worker(
            Forward(model, is_encoder_decoder=self.is_encoder_decoder),
            limits=self.limits,
            context=self.context,
            end_ids=self.end_ids,
            backend_tokenizer=tokenizer.backend_tokenizer,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the model and the limits; the worker starts anew."""
        return type(self), (self.model, self.tokenizer, self.limits)

    @cached_property
    def vocabulary(self) -> int:
        """Length of the model's logits, which may be padded beyond the tokenizer's ids."""
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)  # int8 layers keep theirs behind a method
        size = getattr(weight, "shape", (self.model.config.vocab_size,))[0]
        return int(size)

    @cached_property
    def fingerprint(self) -> str:
        """A digest that two sets of weights or tokenizers do not share."""
        digest = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode())
        digest.update(str(self.tokenizer.chat_template).encode())
        for name, weights in self.model.state_dict().items():
            for part in weights if isinstance(weights, tuple) else (weights,):
                digest.update(f"{name}{_sample(part)}".encode())
        return digest.hexdigest()[:16]

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        """Share the weights: copies of a student differ in settings alone."""
        return self

    def close(self) -> None:
        """End the worker and free its memory; whoever still waits gets a StudentError."""
        self.worker.close()

    def prefill(self, prompt: list[int]) -> Prefill:
        """Prefill a prompt while something else is being waited for.

        The request with the same prompt takes the result over. Encoder-decoder students
        have nothing to prefill, and ignore it.

        Args:
            prompt: Ids of the conversation, with the header of the answer.

        Returns:
            A handle; closing it frees what no request has taken over.
        """
        return Prefill(self.worker, prompt)

    def generate(
        self, request: Request, cancelled: threading.Event, *, whole: bool = False
    ) -> Generator[Piece, None, None]:
        """Generate one answer, token by token.

        Args:
            request: What to continue, and how.
            cancelled: Ends the generation within one step when set.
            whole: Whether to give the text in one piece, at the end; this is quicker.

        Yields:
            Pieces with text as soon as it is certain; the last one has a finish reason
            unless the request was cancelled.

        Raises:
            StudentError: If the model's logits are not numbers, the request does not fit, or
                too many wait already.
        """
        if cancelled.is_set():
            return
        pieces: queue.SimpleQueue[Piece | Exception | None] = queue.SimpleQueue()
        row = self._row(request, pieces.put, cancelled, whole)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            row.closed = True

    async def agenerate(
        self, request: Request, *, whole: bool = False
    ) -> AsyncGenerator[Piece, None]:
        """Do what `generate` does, on the event loop and without a thread per request.

        Args:
            request: What to continue, and how.
            whole: Whether to give the text in one piece, at the end.

        Yields:
            Pieces, as `generate` does. Closing the iterator stops within one step.

        Raises:
            StudentError: As `generate` does.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()
        cancelled = threading.Event()

        def deliver(piece: Piece | Exception | None) -> None:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the loop is closed, and nobody waits
                cancelled.set()

        self._row(request, deliver, cancelled, whole)
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            cancelled.set()

    def used(self, prompt: list[int], prefill: list[int]) -> int:
        """Return how much of the context an answer finds taken.

        Args:
            prompt: Ids of the conversation; an encoder reads them in a context of its own.
            prefill: Ids of the answer's beginning.

        Returns:
            Tokens; a decoder behind an encoder begins with one that says so.
        """
        return len(prefill) + (1 if self.is_encoder_decoder else len(prompt))

    def refuse_long(self, prompt: list[int], prefill: list[int], reserve: int = 0) -> None:
        """Refuse what leaves an answer no room in the context.

        Args:
            prompt: Ids of the conversation.
            prefill: Ids of the answer's beginning.
            reserve: Tokens that will be added to that beginning.

        Raises:
            ValueError: If the context holds no more, or an encoder cannot read the prompt.
        """
        if self.context is None:
            return
        self._refuse_for_encoder(prompt)
        # A long limit is seldom used up: a quarter of the context is kept at most.
        reserve = min(reserve, self.context // 4)
        used = self.used(prompt, prefill)
        if used + reserve < self.context:
            return
        what = "an answer's beginning" if self.is_encoder_decoder else "a prompt"
        more = f" and {reserve} more are kept for guidance" if reserve else ""
        # Oldest turns that are forgotten make no room behind an encoder.
        hint = "" if self.is_encoder_decoder else _TRUNCATE
        raise ValueError(
            f"messages make {what} of {used} tokens{more}, but the student's context holds "
            f"{self.context}; shorten the messages, or use a student with more context{hint}"
        )

    def _refuse_for_encoder(self, prompt: list[int]) -> None:
        if self.is_encoder_decoder and self.context is not None and len(prompt) > self.context:
            raise ValueError(
                f"messages make a prompt of {len(prompt)} tokens, but the student's encoder reads "
                f"{self.context}; shorten the messages, or use a student with more "
                f"context{_TRUNCATE}"
            )

    def _row(self, request: Request, deliver: Any, cancelled: threading.Event, whole: bool) -> Row:
        """Check a request and queue it."""
        ids = [*request.prompt, *request.prefill]
        if not request.prompt:
            raise StudentError("the request has no prompt; there is nothing to continue")
        used = self.used(request.prompt, request.prefill)
        needed = used + request.max_tokens
        try:
            self._refuse_for_encoder(request.prompt)
        except ValueError as error:
            raise StudentError(str(error)) from error
        if self.context is not None and needed > self.context:
            raise StudentError(
                f"the request needs up to {needed} tokens ({used} of text and max_tokens="
                f"{request.max_tokens}), but the student's context holds {self.context}; "
                "shorten the messages or lower max_tokens"
            )
        row = Row(request, ids, deliver, cancelled, whole)
        if request.max_tokens < 1:
            deliver(Piece(text="", tokens=0, finish_reason="length"))
        else:
            self.worker.submit(row)
        return row


def _sample(weights: Any) -> str:
    """Describe weights by a few of them: reading all of a large model would take seconds."""
    if not isinstance(weights, torch.Tensor):
        return str(weights)
    plain = weights.detach()
    flat = (plain.int_repr() if plain.is_quantized else plain).reshape(-1)
    some = flat[:: max(1, flat.numel() // 64)][:64].double().cpu()
    return f"{tuple(weights.shape)}{weights.dtype}{some.numpy().tobytes().hex()}"
