"""Where a model goes: devices that are not there, device maps, models that cannot be moved."""

from __future__ import annotations

import pytest
import torch
from support.models.fakes import MODELS
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_gkt import ConfigurationError, HuggingFaceStudent, StudentError
from langchain_gkt.students.backends.pytorch.loading import refuse_device

FOLDER = str(MODELS / "student")
QUESTION = "What is 3 plus 4?"
HALF = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}


def load_pair(kind=AutoModelForCausalLM):
    return kind.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a device")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "gpu"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_device_that_is_not_there_is_refused_at_construction(device, loaded) -> None:
    model, tokenizer = load_pair() if loaded else (FOLDER, None)
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used .*leave device out"):
        HuggingFaceStudent(model=model, tokenizer=tokenizer, device=device)


def test_devices_that_compute_nothing_or_contradict_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="device='meta' computes nothing"):
        refuse_device("meta")
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        refuse_device("cpu", "auto")
    with pytest.raises(ValueError, match="dtype='int8' runs on a CPU, not on device_map='auto'"):
        HuggingFaceStudent(model=FOLDER, device_map="auto", dtype="int8")
    model, tokenizer = load_pair()
    with pytest.raises(ValueError, match="device_map needs model= to be a folder"):
        HuggingFaceStudent(model=model, tokenizer=tokenizer, device_map="auto")


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, HALF])
def test_a_device_map_is_passed_on(student, device_map) -> None:
    pytest.importorskip("accelerate")
    placed = HuggingFaceStudent(model=FOLDER, device_map=device_map)
    assert placed.invoke(QUESTION).text == student.invoke(QUESTION).text
    if device_map is HALF:
        assert placed._engine.model.hf_device_map == HALF
    placed.close()


def test_a_device_map_that_leaves_layers_out_says_so() -> None:
    pytest.importorskip("accelerate")
    partial = {name: place for name, place in HALF.items() if name != "model.layers.2"}
    with pytest.raises(StudentError, match=r"could not be loaded with device_map=.*layers\.2"):
        HuggingFaceStudent(model=FOLDER, device_map=partial)


@pytest.mark.parametrize("backend", ["llamacpp", "openvino"])
def test_other_engines_refuse_a_device_map(
    backend, gguf, fake_llamacpp, fake_openvino, monkeypatch
) -> None:
    monkeypatch.setattr("langchain_gkt.students.backends.choosing.find_spec", lambda name: True)
    with pytest.raises(ValueError, match=f"device_map is not supported by backend='{backend}'"):
        HuggingFaceStudent(model=gguf, backend=backend, device_map="auto")


def test_offloaded_models_answer_and_are_told_apart(student) -> None:
    accelerate = pytest.importorskip("accelerate")
    found = []
    for seed in (None, 0):
        model, tokenizer = load_pair()
        if seed is not None:
            torch.nn.init.normal_(model.model.layers[1].mlp.up_proj.weight)
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        offloaded = HuggingFaceStudent(model=model, tokenizer=tokenizer)
        found.append((offloaded.invoke(QUESTION).text, offloaded._engine.fingerprint))
        assert "meta" not in offloaded.backend_reason
        offloaded.close()
    assert found[0][0] == student.invoke(QUESTION).text
    assert found[0][1] != found[1][1]


def test_a_model_that_refuses_to_be_moved_stays_where_it_is() -> None:
    model, tokenizer = load_pair()

    class FourBit(type(model)):
        """As bitsandbytes makes them."""

        @property
        def device(self):
            return torch.device("cpu")

        def to(self, *args, **kwargs):
            raise ValueError("`.to` is not supported for `4-bit` models")

    model.__class__ = FourBit
    for device in (None, "cpu"):
        stays = HuggingFaceStudent(model=model, tokenizer=tokenizer, device=device)
        assert stays.invoke(QUESTION).text
        stays.close()
    model.hf_device_map = {"": "cpu", "lm_head": "disk"}
    with pytest.raises(StudentError, match=r"cannot be moved to device='cpu'.*leave device out"):
        HuggingFaceStudent(model=model, tokenizer=tokenizer, device="cpu")
