"""Tiny models of many kinds, and what transformers itself generates with them."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
import time
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from langchain_gkt.students.engine.engine import Engine, Request, TokenChunk
from support.models.fakes import MODELS

TOKENIZER = AutoTokenizer.from_pretrained(MODELS / "student")
SIZE = len(TOKENIZER)
LLAMA = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
GPT = {"vocab_size": SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
MAKERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "grouped": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=2)),
    "sliding": lambda: MistralForCausalLM(
        MistralConfig(**LLAMA, num_key_value_heads=2, sliding_window=7)
    ),
    "mixed": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **LLAMA,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=7,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT, initializer_range=0.3)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=SIZE, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(
            vocab_size=SIZE,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            pad_token_id=0,
        )
    ),
    "no cache": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(**GPT, initializer_range=0.3)),
}


class Recorder:
    """A constraint that allows everything, and writes down what was chosen."""

    def __init__(self, complete_after: int | None = None, allow: list[int] | None = None) -> None:
        self.tokens: list[int] = []
        self.complete_after, self.allow = complete_after, allow

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        assert logits.shape == (SIZE,)
        if self.allow is None:
            return logits
        out = torch.full_like(logits, float("-inf"))
        out[self.allow] = logits[self.allow]
        return out

    def choose(self, logits: torch.Tensor, pick) -> int:
        token = pick(self.restrict(logits))
        if token != TOKENIZER.eos_token_id:  # it ends the answer and is no part of it
            self.tokens.append(token)
        return token

    @property
    def done(self) -> bool:
        return len(self.tokens) == self.complete_after


def make_model(kind: str):
    torch.manual_seed(7)
    model = MAKERS[kind]().eval()
    model.generation_config.eos_token_id = None
    return model


def run(engine: Engine, request: Request, **options) -> list[TokenChunk]:
    return list(engine.generate(request, threading.Event(), **options))


def tokens_of(engine: Engine, request: Request) -> list[int]:
    recorder = Recorder()
    run(engine, dataclasses.replace(request, constraint=recorder))
    return recorder.tokens


def reference(model, request: Request) -> list[int]:
    """What transformers itself generates for this request alone."""
    options = {"max_new_tokens": request.max_tokens, "do_sample": False, "pad_token_id": 0}
    if model.config.is_encoder_decoder:
        start = torch.tensor([[0, *request.answer_prefix]])
        out = model.generate(torch.tensor([request.prompt]), decoder_input_ids=start, **options)
        new = out[0, 1 + len(request.answer_prefix) :].tolist()
    else:
        ids = [*request.prompt, *request.answer_prefix]
        new = model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist()
    end = TOKENIZER.eos_token_id
    return new[: new.index(end)] if end in new else new


def ids(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(5, SIZE), k=count)


def write_no_more(scheduler: Any, after: int = 3) -> None:
    """Let an engine's rows stand still after some steps, as a slow model's would."""
    decode, steps = scheduler._decode, itertools.count(1)
    scheduler._decode = lambda: decode() if next(steps) <= after else time.sleep(0.001)


def wait_until(true, seconds: float = 60.0) -> None:
    last = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.01)
