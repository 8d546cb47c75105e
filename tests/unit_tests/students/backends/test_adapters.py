"""Folders of PEFT adapters: what is said without peft, and what peft is asked for."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.models.fakes import MODELS
from transformers import AutoTokenizer

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.backends.pytorch import adapters

BASE = str(MODELS / "student")
QUESTION = "What is 3 plus 4?"


def adapter(folder: Path, **changed: object) -> str:
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": BASE, **changed}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def fake_peft(monkeypatch):
    """Stands for peft: doubles the head of a model, so that it is known to have been there."""
    put_on = []

    class PeftModel:
        def __init__(self, model):
            self.model = model

        @classmethod
        def from_pretrained(cls, model, folder):
            put_on.append((folder, model.get_input_embeddings().weight.shape[0]))
            if folder.endswith("cut"):
                warnings.warn("Found missing adapter keys while loading", UserWarning, stacklevel=1)
            return cls(model)

        def merge_and_unload(self):
            return self.model

    monkeypatch.setitem(sys.modules, "peft", types.SimpleNamespace(PeftModel=PeftModel))
    monkeypatch.setattr(adapters, "find_spec", lambda name: object())
    return put_on


def test_without_peft_an_adapter_names_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"is an adapter .*langchain-gkt\[peft\]"):
        HuggingFaceStudent(model=adapter(tmp_path / "lora"))


def test_an_adapter_is_put_on_its_base_model(tmp_path, fake_peft, student) -> None:
    folder = adapter(tmp_path / "lora")
    merged = HuggingFaceStudent(model=folder, dtype="int8")
    assert fake_peft == [(folder, student._engine.vocabulary)]
    assert merged.invoke(QUESTION).text
    assert "int8" in merged.backend_reason
    assert merged.display_name == "lora"
    merged.close()


def test_an_adapter_brings_its_own_tokenizer(tmp_path, fake_peft, student) -> None:
    folder = adapter(tmp_path / "lora")
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    merged = HuggingFaceStudent(model=folder)
    assert fake_peft == [(folder, student._engine.vocabulary + 1)]
    assert len(merged._engine.tokenizer) == len(tokenizer)
    merged.close()


@pytest.mark.parametrize(
    ("key", "rows"), [("embed_tokens.weight", 640), ("embed_tokens.base_layer.weight", 601)]
)
def test_an_adapter_with_an_embedding_gets_as_many_rows(tmp_path, fake_peft, key, rows) -> None:
    folder = adapter(tmp_path / "lora")
    saved = {f"base_model.model.model.{key}": torch.zeros(rows, 96)}
    save_file(saved, tmp_path / "lora" / "adapter_model.safetensors")
    merged = HuggingFaceStudent(model=folder)  # its tokenizer may have fewer: rows that fill up
    assert fake_peft == [(folder, rows)]
    merged.close()


def test_added_tokens_that_no_adapter_was_trained_with_are_refused(tmp_path, fake_peft) -> None:
    folder = adapter(tmp_path / "lora")
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    saved = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(8, 96)}
    save_file(saved, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(StudentError, match=r"has 601 tokens, but the model's embedding has 600"):
        HuggingFaceStudent(model=folder)


def test_what_is_wrong_with_an_adapter_is_said(tmp_path, fake_peft) -> None:
    with pytest.raises(StudentError, match="is an adapter, and its base model could not be loaded"):
        HuggingFaceStudent(model=adapter(tmp_path / "a", base_model_name_or_path="./nope"))
    with pytest.raises(StudentError, match="names no base model"):
        HuggingFaceStudent(model=adapter(tmp_path / "b", base_model_name_or_path=None))
    with pytest.raises(StudentError, match=r"could not be put on its base model .*missing"):
        HuggingFaceStudent(model=adapter(tmp_path / "cut"))
    broken = adapter(tmp_path / "c")
    Path(broken, "adapter_config.json").write_text("{")
    with pytest.raises(StudentError, match=r"adapter_config\.json cannot be read"):
        HuggingFaceStudent(model=broken)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
@pytest.mark.filterwarnings("ignore")
def test_a_real_adapter_changes_the_logits(tmp_path, student) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
    trained = get_peft_model(base, config)
    trained.save_pretrained(tmp_path / "lora")
    merged = HuggingFaceStudent(model=tmp_path / "lora", dtype="float32")
    loaded = HuggingFaceStudent(model=trained, tokenizer=AutoTokenizer.from_pretrained(BASE))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        want = trained(input_ids=ids).logits
        for one in (merged, loaded):
            assert torch.allclose(one._engine.model(input_ids=ids).logits, want, atol=1e-3)
    assert merged._engine.fingerprint != student._engine.fingerprint
    for one in (merged, loaded):
        one.close()
