"""Attention by groups of query heads."""

from __future__ import annotations

import pytest
import torch
from support.models.tiny import ids, make_model
from transformers.integrations import sdpa_attention

from langchain_gkt.students.engine.model_runner import ModelRunner


def detected(model) -> ModelRunner:
    runner = ModelRunner(model, is_encoder_decoder=False, trial_ids=ids(1, 12))
    with torch.inference_mode():
        runner.detect_capabilities()
    return runner


def decoded(runner: ModelRunner) -> torch.Tensor:
    """Logits of two steps of three rows."""
    with torch.inference_mode():
        batch = runner.new_batch()
        cache = runner.new_cache(40)
        runner.prefill(cache, ids(2, 20))
        for length in (20, 17, 12):
            cache.window.end = length
            batch.add(cache, None)
        return torch.stack([runner.decode(batch, tokens) for tokens in ([5, 6, 7], [8, 9, 10])])


@pytest.mark.skipif(
    not hasattr(sdpa_attention, "pack_gqa"), reason="this transformers repeats the keys instead"
)
@pytest.mark.parametrize("kind", ["grouped", "mixed"])
def test_heads_are_folded_in_low_precision(kind) -> None:
    assert not detected(make_model(kind))._fold_heads
    runner = detected(make_model(kind).bfloat16())
    assert runner._fold_heads
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
