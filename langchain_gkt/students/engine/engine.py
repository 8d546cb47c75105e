"""The torch side of a student: one model, its scheduler, and the calls that use it.

Requests of any number of threads and event loops are decoded together by the scheduler.
Requests to encoder-decoder students, and to models without a KV cache of the usual kind, run
unbatched: they take turns, step by step, and share no prefixes.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
from collections.abc import AsyncGenerator, Generator
from functools import cached_property
from typing import Any, Literal

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.detokenizer import Detokenizer
from langchain_gkt.students.engine.model_runner import ModelRunner
from langchain_gkt.students.engine.request import Constraint, Request, TokenChunk
from langchain_gkt.students.engine.request_state import Deliver, RequestState
from langchain_gkt.students.engine.scheduler import Scheduler
from langchain_gkt.students.engine.token_healing import Healing, TokenSpelling

__all__ = ["Constraint", "Engine", "EngineConfig", "Prefill", "Request", "TokenChunk"]

# Ordinary text for finding out how a model can be run.
_TRIAL_TEXT = "Tom had 17 apples and bought 5 more. How many does he have? He has 17 + 5 = 22."

_TRUNCATE = ", or set on_long_prompt='truncate' (student_kwargs of a chain)"


class Prefill:
    """A prompt that is being prefilled ahead of its request.

    As a context manager it frees the KV cache on leaving, unless a request uses it.
    """

    def __init__(self, scheduler: Scheduler, ids: list[int]) -> None:
        """Start prefilling.

        Args:
            scheduler: The model's scheduler.
            ids: Ids of the prompt.
        """
        self._scheduler = scheduler
        self._ticket = scheduler.prefill_ahead(ids)

    @property
    def done(self) -> bool:
        """Whether nothing is left to prefill."""
        return self._ticket.done

    def close(self) -> None:
        """Stop, and free the KV cache unless a request uses it."""
        self._scheduler.discard(self._ticket)

    def __enter__(self) -> Prefill:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


class Engine:
    """A loaded model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, config: EngineConfig | None = None) -> None:
        """Prepare a model for inference.

        Args:
            model: A transformers model with a language-modelling head.
            tokenizer: Its tokenizer, of the fast kind.
            config: How many requests and how much memory; None for the defaults.

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
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        # T5-type models have relative positions and no hard limit of their own.
        text_config = model.config.get_text_config()
        self.context: int | None = getattr(text_config, "max_position_embeddings", None)
        self.config = config or EngineConfig()
        self.scheduler = Scheduler(
            ModelRunner(
                model,
                is_encoder_decoder=self.is_encoder_decoder,
                trial_ids=tokenizer(_TRIAL_TEXT, add_special_tokens=False)["input_ids"],
            ),
            config=self.config,
            context=self.context,
            end_ids=self.end_ids,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the model and the settings; the copy starts a scheduler of its own."""
        return type(self), (self.model, self.tokenizer, self.config)

    @property
    def closed(self) -> bool:
        """Whether requests are refused, because `close` was called."""
        return self.scheduler.queue.closed

    @cached_property
    def vocabulary(self) -> int:
        """Length of the model's logits, which may be padded beyond the tokenizer's ids."""
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)  # int8 layers keep theirs behind a method
        size = getattr(weight, "shape", (self.model.config.vocab_size,))[0]
        return int(size)

    @cached_property
    def spelling(self) -> TokenSpelling:
        """What its tokens spell; read from the vocabulary at first use, in up to a second."""
        return TokenSpelling(self.tokenizer, self.vocabulary)

    @property
    def repeatable(self) -> Literal["always", "alone"]:
        """When greedy answers to one prompt are equal.

        ``always`` in float32, whatever runs beside them. In bfloat16, float16 and int8 only if
        both are asked ``alone``, while the prefix cache keeps the prompt: in a batch the last
        digits of the logits depend on the neighbours.
        """
        return "always" if self.scheduler.model_runner.is_exact else "alone"

    @cached_property
    def fingerprint(self) -> str:
        """A digest that differs between two sets of weights or two tokenizers."""
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
        """End the thread and free its memory; requests that still run get a StudentError."""
        self.scheduler.close()

    def prefill(self, prompt: list[int]) -> Prefill:
        """Prefill a prompt while something else is being waited for.

        The request with the same prompt uses the result. Encoder-decoder students have nothing
        to prefill, and ignore it.

        Args:
            prompt: Ids of the conversation, with the header of the answer.

        Returns:
            A handle; closing it frees the KV cache, unless a request uses it.
        """
        prefill = Prefill(self.scheduler, prompt)
        _ = self.spelling  # there is time now, and it will be needed where text is begun
        return prefill

    def generate(
        self, request: Request, cancelled: threading.Event, *, stream: bool = True
    ) -> Generator[TokenChunk, None, None]:
        """Generate one answer, token by token.

        Args:
            request: What to continue, and how.
            cancelled: Ends the generation within one step when set.
            stream: Whether to give text as soon as it is certain, or once, at the end; the latter
                is quicker.

        Yields:
            TokenChunks with text as soon as it is certain; the last one has a finish reason
            unless the request was cancelled.

        Raises:
            StudentError: If the model's logits are not numbers, the request does not fit, or
                too many wait already.
        """
        if cancelled.is_set():
            return
        chunks: queue.SimpleQueue[TokenChunk | Exception | None] = queue.SimpleQueue()
        state = self._submit(request, chunks.put, cancelled, stream)
        try:
            while (chunk := chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
                if chunk.finish_reason is not None:
                    return
        finally:
            state.closed = True

    async def agenerate(
        self, request: Request, *, stream: bool = True
    ) -> AsyncGenerator[TokenChunk, None]:
        """Do what `generate` does, on the event loop and without a thread per request.

        Args:
            request: What to continue, and how.
            stream: Whether to give text as soon as it is certain, or once, at the end.

        Yields:
            TokenChunks, as `generate` does. Closing the iterator stops within one step.

        Raises:
            StudentError: As `generate` does.
        """
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[TokenChunk | Exception | None] = asyncio.Queue()
        cancelled = threading.Event()

        def deliver(chunk: TokenChunk | Exception | None) -> None:
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the event loop is closed: nobody waits
                cancelled.set()

        self._submit(request, deliver, cancelled, stream)
        try:
            while (chunk := await chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
                if chunk.finish_reason is not None:
                    return
        finally:
            cancelled.set()

    def used(self, prompt: list[int], prefill: list[int]) -> int:
        """Return how much of the context is used before the answer goes on.

        Args:
            prompt: Ids of the conversation; an encoder reads them in a context of its own.
            prefill: Ids of the answer's beginning.

        Returns:
            Tokens; the decoder of an encoder-decoder model begins with a start token.
        """
        return len(prefill) + (1 if self.is_encoder_decoder else len(prompt))

    def refuse_long(self, prompt: list[int], prefill: list[int], reserve: int = 0) -> None:
        """Refuse messages that leave an answer no room in the context.

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
        # Dropping the oldest turns makes no room in an encoder-decoder model's decoder.
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

    def _submit(
        self, request: Request, deliver: Deliver, cancelled: threading.Event, stream: bool
    ) -> RequestState:
        """Check a request and queue it."""
        ids = [*request.prompt, *request.kept]
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
        state = RequestState(
            request=request,
            ids=ids,
            deliver=deliver,
            cancelled=cancelled,
            detokenizer=Detokenizer(self.tokenizer.backend_tokenizer, request),
            stream=stream,
            healing=Healing(self.spelling, request.seam) if request.seam else None,
        )
        if request.max_tokens < 1:
            deliver(TokenChunk(text="", tokens=0, finish_reason="length"))
        else:
            self.scheduler.submit(state)
        return state


def _sample(weights: Any) -> str:
    """Describe weights by a few of them: reading all of a large model would take seconds."""
    if not isinstance(weights, torch.Tensor):
        return str(weights)
    plain = weights.detach()
    flat = (plain.int_repr() if plain.is_quantized else plain).reshape(-1)
    some = flat[:: max(1, flat.numel() // 64)][:64].double().cpu()
    return f"{tuple(weights.shape)}{weights.dtype}{some.numpy().tobytes().hex()}"
