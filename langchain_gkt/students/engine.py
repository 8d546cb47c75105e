"""The torch side of a student: prefill, decode, stop, cancel.

One request is one generator. The weights are shared and each request has a KV cache of its
own, so requests may run in several threads at once.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import DynamicCache, EncoderDecoderCache

from langchain_gkt.errors import StudentError

if TYPE_CHECKING:
    from langchain_gkt.students.grammar import Constraint


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
        constraint: Holds the answer to a grammar; it serves one request.
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


class Engine:
    """A loaded model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Take a model for inference.

        Args:
            model: A transformers model with a language-modelling head.
            tokenizer: Its tokenizer, of the fast kind.

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
        # Logits of the last position only, where the model can: the others are not read.
        parameters = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @cached_property
    def vocabulary(self) -> int:
        """Length of the model's logits, which may be padded beyond the tokenizer's ids."""
        head = self.model.get_output_embeddings()
        size = head.weight.shape[0] if head is not None else self.model.config.vocab_size
        return int(size)

    @cached_property
    def fingerprint(self) -> str:
        """A digest that two sets of weights or tokenizers do not share."""
        digest = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode())
        digest.update(str(self.tokenizer.chat_template).encode())
        for name, weights in self.model.state_dict().items():
            digest.update(f"{name}{tuple(weights.shape)}{weights.dtype}".encode())
            flat = weights.detach().reshape(-1)
            # A sample: reading every weight of a large model would take seconds.
            some = flat[:: max(1, flat.numel() // 64)][:64].double().cpu()
            digest.update(some.numpy().tobytes())
        return digest.hexdigest()[:16]

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        """Share the weights: copies of a student differ in settings alone."""
        return self

    def generate(self, request: Request, cancelled: threading.Event) -> Iterator[Piece]:
        """Generate one answer, token by token.

        Args:
            request: What to continue, and how.
            cancelled: Ends the generation within one step when set.

        Yields:
            Pieces with text as soon as it is certain; the last one has a finish reason
            unless the request was cancelled.

        Raises:
            StudentError: If the model's logits are not numbers.
        """
        generator = None
        # Dividing by less overflows, and the draw is the likeliest token anyway.
        if request.temperature > 1e-4:
            generator = torch.Generator(device=self.model.device)
            if request.seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.seed)
        # The beginning of the answer comes first in the stream: a tokenizer that writes its
        # blanks in front of words then knows whether the next word needs one.
        decoder = DecodeStream(
            ids=list(request.prefill), skip_special_tokens=not request.keep_special
        )
        stop = StopFilter(request.stop)
        state: dict[str, Any] = {}
        ids = self._first_ids(request, state)
        for count in range(1, request.max_tokens + 1):
            if cancelled.is_set():
                return
            token = self._next(self._forward(ids, state), request, generator)
            if token in self.end_ids:
                yield Piece(text=stop.flush(), tokens=count, finish_reason="stop")
                return
            text = decoder.step(self.tokenizer.backend_tokenizer, token) or ""
            text, stopped = stop.feed(text)
            if stopped or (request.constraint and request.constraint.done):
                text += "" if stopped else stop.flush()
                yield Piece(text=text, tokens=count, finish_reason="stop")
                return
            if text:
                yield Piece(text=text, tokens=count)
            ids = [token]
        yield Piece(text=stop.flush(), tokens=max(0, request.max_tokens), finish_reason="length")

    @torch.inference_mode()
    def _first_ids(self, request: Request, state: dict[str, Any]) -> list[int]:
        """Set up the KV cache (and the encoder) and return the ids to prefill."""
        if not self.is_encoder_decoder:
            state["past_key_values"] = DynamicCache(config=self.model.config)
            return [*request.prompt, *request.prefill]
        state["past_key_values"] = EncoderDecoderCache(
            DynamicCache(config=self.model.config), DynamicCache(config=self.model.config)
        )
        state["encoder_outputs"] = self.model.get_encoder()(self._tensor(request.prompt))
        start = self.model.generation_config.decoder_start_token_id
        if start is None:
            start = self.model.config.decoder_start_token_id
        return [start, *request.prefill]

    # No decorated function yields: inference mode would leak into the caller's code.
    @torch.inference_mode()
    def _forward(self, ids: list[int], state: dict[str, Any]) -> torch.Tensor:
        """Feed ids and return the last position's logits, shape (vocabulary,)."""
        name = "decoder_input_ids" if self.is_encoder_decoder else "input_ids"
        out = self.model(**{name: self._tensor(ids)}, use_cache=True, **state, **self._last_only)
        logits: torch.Tensor = out.logits[0, -1]
        return logits

    def _next(
        self, logits: torch.Tensor, request: Request, generator: torch.Generator | None
    ) -> int:
        if request.constraint is None:
            return self._choose(logits, request, generator)
        return request.constraint.choose(
            logits, lambda allowed: self._choose(allowed, request, generator)
        )

    @torch.inference_mode()
    def _choose(
        self, logits: torch.Tensor, request: Request, generator: torch.Generator | None
    ) -> int:
        logits = logits.float()
        if not torch.isfinite(logits).any() or torch.isnan(logits).any():
            raise StudentError("the student's logits are not numbers; check its weights and dtype")
        if generator is None:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / request.temperature, dim=-1)
        if request.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            beyond = ordered.cumsum(-1) - ordered >= request.top_p
            probabilities = probabilities.index_fill(0, order[beyond], 0.0)
        return int(torch.multinomial(probabilities, 1, generator=generator))

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.model.device)
