"""The torch side of a student: one model, its scheduler, and the calls that use it.

The scheduler decodes requests of any number of threads and event loops together. Requests to
encoder-decoder students, and to models without a KV cache of the usual kind, run unbatched: they
take turns, step by step, and share no prefixes.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal

import torch

from langchain_gkt.students.engine.base import LocalEngine
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.int8 import Int8Linear
from langchain_gkt.students.engine.layers.widening import WideningLinear
from langchain_gkt.students.engine.model_runner import ModelRunner
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import Constraint, Request, TokenChunk
from langchain_gkt.students.engine.scheduler import Scheduler
from langchain_gkt.students.engine.vocabulary import (
    end_ids,
    input_embedding,
    refuse_unknown_tokens,
)
from langchain_gkt.students.protocol import FirstTokenDetail

__all__ = ["Constraint", "Engine", "EngineConfig", "Request", "TokenChunk"]

# Ordinary text on which the runner tries how a model can be run.
_TRIAL_TEXT = "Tom had 17 apples and bought 5 more. How many does he have? He has 17 + 5 = 22."
# The fingerprint reads this many of the weights that were offloaded to a disk.
_MOST_OFFLOADED = 16


class Engine(LocalEngine):
    """A loaded model and its tokenizer. This is the backend named ``torch``."""

    name = "torch"
    first_token_detail: FirstTokenDetail = "entropies"

    def __init__(self, model: Any, tokenizer: Any, config: EngineConfig | None = None) -> None:
        """Prepare a transformers model with a language-modelling head for inference.

        Raises:
            StudentError: If the tokenizer is not a fast one, or has tokens that the model lacks.
        """
        super().__init__(tokenizer)
        embedding = getattr(input_embedding(model), "weight", None)
        rows = getattr(model.config, "vocab_size", None) if embedding is None else len(embedding)
        if rows is not None:
            refuse_unknown_tokens(tokenizer, int(rows))
        self.model = model.eval()
        weight = getattr(model.get_output_embeddings(), "weight", None)  # int8 layers have none
        self.vocabulary = int(getattr(weight, "shape", (model.config.vocab_size,))[0])
        self.end_ids = end_ids(tokenizer, getattr(model.generation_config, "eos_token_id", None))
        # T5-type models have relative positions and no hard limit of their own.
        text_config = model.config.get_text_config()
        context: int | None = getattr(text_config, "max_position_embeddings", None)
        self.window = ContextWindow(context, bool(model.config.is_encoder_decoder))
        self.config = config or EngineConfig()
        self.scheduler = Scheduler(
            ModelRunner(
                model,
                is_encoder_decoder=self.window.is_encoder_decoder,
                trial_ids=tokenizer(_TRIAL_TEXT, add_special_tokens=False)["input_ids"],
            ),
            config=self.config,
            context=self.window.size,
            end_ids=self.end_ids,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the model and the settings. The copy starts a scheduler of its own."""
        return type(self), (self.model, self.tokenizer, self.config)

    @property
    def description(self) -> str:
        """What runs the model, for people."""
        layers = {type(module) for module in self.model.modules()}
        weights = "int8" if Int8Linear in layers else str(self.model.dtype).removeprefix("torch.")
        if WideningLinear in layers:
            weights += " (this CPU has no instructions for it, so batches multiply in float32)"
        device = self.scheduler.model_runner.device
        return f"transformers and torch {torch.__version__}, {weights}, {device}"

    @property
    def closed(self) -> bool:
        """Whether requests are refused, because `close` was called."""
        return self.scheduler.queue.closed

    @property
    def repeatable(self) -> Literal["always", "alone"]:
        """When greedy answers to one prompt are equal.

        ``always`` in float32, whatever runs beside them. In bfloat16, float16 and int8 only if both
        are asked ``alone``, while the prefix cache keeps the prompt. In a batch the last digits of
        the logits depend on the neighbours.
        """
        return "always" if self.scheduler.model_runner.is_exact else "alone"

    @cached_property
    def fingerprint(self) -> str:
        """A digest that differs between two sets of weights or two tokenizers."""
        digest = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode())
        digest.update(str(self.tokenizer.chat_template).encode())
        offloaded = 0
        for name, weights in self.model.state_dict().items():
            for part in weights if isinstance(weights, tuple) else (weights,):
                if getattr(part, "is_meta", False) and offloaded < _MOST_OFFLOADED:
                    part, offloaded = _offloaded(self.model, name, part), offloaded + 1
                digest.update(f"{name}{_sample(part)}".encode())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """End the thread and free its memory. Requests that still run get a StudentError."""
        self.scheduler.close()

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Prefill a prompt. Encoder-decoder students have nothing to prefill, and ignore it."""
        ahead = self.scheduler.prefill_ahead(prompt)
        _ = self.spelling  # there is time now, and a begun answer will need it
        return ahead

    def _send(self, state: RequestState) -> None:
        self.scheduler.queue.submit(state)


def _offloaded(model: Any, name: str, otherwise: torch.Tensor) -> torch.Tensor:
    """Read back a weight that accelerate keeps off the device until it is needed."""
    module, _, leaf = name.rpartition(".")
    hook = getattr(model.get_submodule(module), "_hf_hook", None)
    kept = getattr(hook, "weights_map", None)
    return otherwise if kept is None else kept[leaf]


def _sample(weights: Any) -> str:
    """Describe weights by a few of them: reading all of a large model would take seconds."""
    if not isinstance(weights, torch.Tensor):
        return str(weights)
    plain = weights.detach()
    if plain.is_meta:
        return f"{tuple(weights.shape)}{weights.dtype}"
    flat = (plain.int_repr() if plain.is_quantized else plain).reshape(-1)
    some = flat[:: max(1, flat.numel() // 64)][:64].double().cpu()
    return f"{tuple(weights.shape)}{weights.dtype}{some.numpy().tobytes().hex()}"
