"""Models that the tests of students share."""

from __future__ import annotations

import pytest
import torch
from support.models.fakes import MODELS
from support.models.scripted import save_scripted
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from langchain_gkt import (
    HuggingFaceStudent,
)


@pytest.fixture(scope="session")
def student(whole_student: HuggingFaceStudent) -> HuggingFaceStudent:
    return whole_student


@pytest.fixture(scope="session")
def plain_folders(tmp_path_factory) -> dict[str, str]:
    """Untrained models without chat templates: a GPT-2 and a T5."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template = None
    size, end = len(tokenizer), tokenizer.eos_token_id
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=end
        )
    )
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=end,
        )
    )
    for name, model in (("gpt2", gpt2), ("t5", t5)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("gpt2", "t5")}


@pytest.fixture
def own_student():
    """A student that a test may close."""
    student = HuggingFaceStudent(model=MODELS / "student")
    yield student
    student.close()


@pytest.fixture(scope="session")
def caller(tmp_path_factory) -> HuggingFaceStudent:
    """A student that calls tools."""
    return HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))
