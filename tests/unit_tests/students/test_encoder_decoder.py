"""Encoder-decoder students: a context for each half."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
)
from support.models.fakes import MODELS
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
)

from langchain_gkt import (
    HuggingFaceStudent,
    StudentError,
)
from langchain_gkt.students.engine.engine import Request


@pytest.fixture(scope="module")
def bart() -> dict[str, Any]:
    """An untrained BART, whose encoder and decoder hold 64 tokens each, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template = None
    tokenizer.eos_token = None  # so that every answer is as long as may be
    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 32)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    ends = dict.fromkeys(("eos_token_id", "forced_eos_token_id"))
    torch.manual_seed(0)
    config = BartConfig(**sizes, **ends, encoder_layers=1, decoder_layers=1, pad_token_id=0)
    config.decoder_start_token_id = 0
    return {"model": BartForConditionalGeneration(config), "tokenizer": tokenizer}


def test_encoder_and_decoder_have_a_context_each(bart) -> None:
    student = HuggingFaceStudent(**bart)
    for turns in ([HumanMessage("1 " * 30)], [HumanMessage("hi"), AIMessage("1 " * 15)]):
        prompt, prefill = student._loader.load().prompts.build(turns)
        used = student.invoke(turns).usage_metadata
        assert used["input_tokens"] == len(prompt) + len(prefill)
        assert used["output_tokens"] == 63 - len(prefill)  # and one token that begins it
    long = len(student._loader.load().prompts.build([HumanMessage("1 " * 80)])[0])
    with pytest.raises(ValueError, match=rf"prompt of {long} tokens, but .* reads 64"):
        student.invoke("1 " * 80)
    with pytest.raises(ValueError, match=r"beginning of \d+ tokens, but .* context holds 64"):
        student.invoke([("human", "hi"), ("ai", "1 " * 80)])
    with pytest.raises(ValueError, match=r"beginning .* and 16 more .* guidance.* holds 64"):
        student.check([HumanMessage("hi"), AIMessage("1 " * 26)], reserve=900)
    student.check([HumanMessage("1 " * 30)], reserve=900)  # guidance is none of the encoder's
    for prompt, says in (([5] * 65, "65 tokens, but .* reads 64"), ([5], "65 tokens .* holds 64")):
        request = Request(prompt=prompt, answer_prefix=[], max_tokens=64)
        with pytest.raises(StudentError, match=says):
            next(student._engine.generate(request, threading.Event()))


def test_an_encoders_prompt_is_truncated_to_its_own_context(bart) -> None:
    student = HuggingFaceStudent(**bart, on_long_prompt="truncate")
    turns = [("human", "1 " * 80), ("ai", "The sum")]
    prefill = student._loader.load().prompts.build([HumanMessage("hi"), AIMessage("The sum")])[1]
    used = student.invoke(turns, max_tokens=5).usage_metadata
    assert 60 < used["input_tokens"] - len(prefill) <= 64


def test_relative_positions_have_no_limit(plain_folders) -> None:
    student = HuggingFaceStudent(model=plain_folders["t5"], max_tokens=2)
    assert student.invoke("1 " * 600).usage_metadata["input_tokens"] > 600
