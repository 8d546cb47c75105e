"""Decoding steps in one loop, and attention by groups of query heads."""

from __future__ import annotations

import logging

import pytest
import torch
from support.models.tiny import LLAMA, TOKENIZER, ids, make_model, reference, tokens_of
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.integrations import sdpa_attention

from langchain_gkt.students.engine.engine import Engine, Request
from langchain_gkt.students.engine.kv.shared_prefix import SharedPrefix
from langchain_gkt.students.engine.layers.flat_decoder import FlatDecoder
from langchain_gkt.students.engine.model_runner import ModelRunner


def make_qwen2() -> Qwen2ForCausalLM:
    torch.manual_seed(7)
    return Qwen2ForCausalLM(Qwen2Config(**LLAMA, num_key_value_heads=2)).eval()


def detected(model) -> ModelRunner:
    runner = ModelRunner(model, is_encoder_decoder=False, trial_ids=ids(1, 12))
    with torch.inference_mode():
        runner.detect_capabilities()
    return runner


def decoded(runner: ModelRunner, *, shared: int = 0) -> torch.Tensor:
    """Logits of two steps of three rows, of which two may share a prefix."""
    with torch.inference_mode():
        batch = runner.new_batch()
        cache = runner.new_cache(40)
        runner.prefill(cache, ids(2, 20))
        prefix = SharedPrefix(shared, cache.segment(0, shared)) if shared else None
        for length, held in ((20, prefix), (17, prefix), (12, None)):
            cache.window.end = length
            batch.add(cache, held)
        return torch.stack([runner.decode(batch, tokens) for tokens in ([5, 6, 7], [8, 9, 10])])


@pytest.mark.parametrize("make", [lambda: make_model("grouped"), make_qwen2])
@pytest.mark.parametrize("shared", [0, 9])
def test_logits_are_the_models_own(make, shared) -> None:
    runner = detected(make())
    assert runner._flat is not None
    got = decoded(runner, shared=shared)
    runner._flat = None
    torch.testing.assert_close(got, decoded(runner), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sliding", "mixed", "gpt2"])
def test_other_models_run_in_their_own_way(kind) -> None:
    runner = detected(make_model(kind))
    assert runner.can_batch
    assert runner._flat is None


def _with_hook(model) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)


def _with_forward(model) -> None:
    model.model.norm.forward = lambda hidden: hidden


def _eager(model) -> None:
    model.set_attn_implementation("eager")


def _of_another_class(model) -> None:
    attention = model.model.layers[0].self_attn
    attention.__class__ = type("LlamaAttention", (type(attention),), {"__module__": "mine"})


@pytest.mark.parametrize("change", [_with_hook, _with_forward, _eager, _of_another_class])
def test_models_that_were_changed_are_left_alone(change) -> None:
    model = make_model("grouped")
    assert FlatDecoder.supports(model)
    change(model)
    assert not FlatDecoder.supports(model)


def test_steps_with_other_logits_are_not_used(monkeypatch, caplog) -> None:
    step = FlatDecoder.step
    monkeypatch.setattr(FlatDecoder, "step", lambda *args: 1.1 * step(*args))
    model = make_model("grouped")
    engine = Engine(model, TOKENIZER)
    request = Request(prompt=ids(1, 9), answer_prefix=[], max_tokens=8)
    with caplog.at_level(logging.WARNING):
        assert tokens_of(engine, request) == reference(model, request)
    engine.close()
    assert engine.scheduler.model_runner._flat is None
    assert "are decoded in transformers' own way" in caplog.text


@pytest.mark.skipif(
    not hasattr(sdpa_attention, "pack_gqa"), reason="this transformers repeats the keys instead"
)
@pytest.mark.parametrize("kind", ["grouped", "mixed"])
def test_heads_are_folded_in_low_precision(kind) -> None:
    assert not detected(make_model(kind))._fold_heads
    runner = detected(make_model(kind).bfloat16())
    assert runner._fold_heads
    runner._flat = None
    got = decoded(runner)
    runner._fold_heads = False
    want = decoded(runner)
    assert (got - want).std() < 0.02 * want.std()


def test_models_that_cannot_be_folded_are_batched_all_the_same() -> None:
    model = make_model("mixed").bfloat16()
    model.set_attn_implementation("eager")
    runner = detected(model)
    assert runner.can_batch
    assert not runner._fold_heads
