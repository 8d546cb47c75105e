"""Objects of free and of recursive schemas end in time in the vocabularies of real models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from transformers import AutoTokenizer

from langchain_gkt.structured_output.constraint import GrammarConstraint, GrammarTokenizer
from langchain_gkt.structured_output.grammar import json_grammar

FREE = [
    {"type": "object", "additionalProperties": {"type": "string"}},
    {"type": "object", "additionalProperties": True},
    {"type": "array", "items": {}},
    {"type": "array", "items": {"$ref": "#"}},
]


@pytest.fixture(scope="module", params=["smollm2_folder", "qwen_folder", "GKT_GEMMA"])
def tokenizer(request: Any) -> Any:
    if request.param == "GKT_GEMMA":
        if not Path(os.environ.get("GKT_GEMMA", "") or "-").is_dir():
            pytest.skip("no Gemma model: set GKT_GEMMA to the folder of a Gemma 3 model")
        return AutoTokenizer.from_pretrained(os.environ["GKT_GEMMA"])
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def test_a_free_object_ends_in_time(tokenizer: Any) -> None:
    end, size = tokenizer.eos_token_id, len(tokenizer)
    known = GrammarTokenizer(tokenizer, {end}, size)
    opening = torch.zeros(size)
    for mark in '"{[\\':
        opening[tokenizer(mark, add_special_tokens=False)["input_ids"]] = 6.0
    for seed in range(24):
        schema = {"type": "object", "properties": {"d": FREE[seed % 4]}, "required": ["d"]}
        generator = torch.Generator().manual_seed(seed)
        limit, ids = (10, 16, 45)[seed % 3], []
        held = GrammarConstraint(known, json_grammar(schema), begun="", max_tokens=limit)
        while len(ids) < limit and not held.done and ids[-1:] != [end]:
            logits = 3 * torch.randn(size, generator=generator) + (seed % 2) * opening
            logits[end] -= 50  # goes on as long as it may
            ids.append(held.choose(logits, lambda scores: int(scores.argmax())))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        jsonschema.validate(json.loads(text), schema)
