from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from support.models.tiny import TOKENIZER, ids, make_model, tokens_of

from langchain_gkt import StudentError
from langchain_gkt.students.engine.engine import Engine, Request
from langchain_gkt.students.engine.int8 import Int8Linear, quantize


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids(1, 12)])).logits


@pytest.fixture
def small():
    return quantize(make_model("grouped"))


def test_a_layer_computes_nearly_what_it_did() -> None:
    torch.manual_seed(1)
    linear, inputs = torch.nn.Linear(64, 48), torch.randn(2, 5, 64)
    layer = Int8Linear(linear)
    for some in (inputs, inputs[:1, :1]):
        with torch.inference_mode():
            want, got = linear(some), layer(some)
        assert got.shape == want.shape
        assert 0 < (got - want).std() < 0.03 * want.std()


def test_a_row_is_rounded_without_its_neighbours() -> None:
    torch.manual_seed(1)
    layer, rows = Int8Linear(torch.nn.Linear(64, 48)), torch.randn(4, 64)
    with torch.inference_mode():
        alone = layer(rows[:2])
        rows[2:] *= 1000  # as loud as the first token of a text is in real models
        rows[3] = 0
        assert torch.equal(layer(rows)[:2], alone)
        assert torch.equal(layer(rows)[3], layer._bias)


def test_a_saved_type_is_quantized_as_it_is() -> None:
    torch.manual_seed(1)
    linear, inputs = torch.nn.Linear(64, 48).bfloat16(), torch.randn(2, 64)
    with torch.inference_mode():
        assert torch.equal(Int8Linear(linear)(inputs), Int8Linear(linear.float())(inputs))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_the_same(copied, small) -> None:
    assert torch.equal(logits(copied(small)), logits(small))


def test_quantizing_and_running_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(pickle.loads(pickle.dumps(quantize(make_model("grouped")))))


def test_fingerprints_tell_int8_weights_apart(small) -> None:
    other = make_model("grouped")
    other.lm_head.weight.data *= -1
    models = (small, copy.deepcopy(small), make_model("grouped"), quantize(other))
    prints = [Engine(model, TOKENIZER).fingerprint for model in models]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_int8_models_generate(kind) -> None:
    engine = Engine(quantize(make_model(kind)), TOKENIZER)
    request = Request(prompt=ids(1, 9), answer_prefix=[], max_tokens=8)
    assert len(tokens_of(engine, request)) == 8
    assert engine.scheduler.model_runner.can_batch is (kind == "llama")
    engine.close()


def test_layers_of_other_kinds_are_named() -> None:
    with pytest.raises(StudentError, match=r"dtype='int8' .* GPT2LMHeadModel keeps only"):
        quantize(make_model("gpt2"))
