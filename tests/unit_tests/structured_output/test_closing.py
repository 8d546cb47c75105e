"""Which token ends a text soonest, and marks that are one added token, in a made vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from langchain_gkt.structured_output.closing import ClosingOrder
from langchain_gkt.structured_output.constraint import GrammarTokenizer
from langchain_gkt.structured_output.grammar import tool_grammar
from langchain_gkt.texts.tool_text import CLOSE, OPEN

# Tokens that close several things at once, and one that opens again behind a comma.
WORDS = ['"}', "}}", '"}]}', "]}", '","', '":', "null", " ", '"', "}", "]", ",", "x", "\n"]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
        },
    },
}


def vocabulary(*added: str) -> tuple[GrammarTokenizer, PreTrainedTokenizerFast]:
    """Make a byte-level vocabulary of single bytes, the words above, and added tokens."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    spell = dict(zip("\n ", ("\u010a", "\u0120"), strict=True))
    spelled = ["".join(spell.get(c, c) for c in word) for word in WORDS]
    known = list(dict.fromkeys([*symbols, *spelled]))
    tokenizer = Tokenizer(models.BPE({word: at for at, word in enumerate(known)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in added])
    return GrammarTokenizer(fast, {fast.eos_token_id}, len(fast)), fast


def test_what_closes_most_comes_first() -> None:
    known, fast = vocabulary()
    order = ClosingOrder(known.tokens, known.end_ids, len(fast))
    every = [fast.eos_token, "]}", "}", '"}]}', '"', ",", "null", '","', "\u0120"]
    ids = [fast.convert_tokens_to_ids(word) for word in every]
    wanted = np.zeros(len(fast), dtype=bool)
    for at, token in enumerate(ids):
        wanted[:] = False
        wanted[ids[at:]] = True
        if every[at] == "]}":  # both brackets alone would mean the inside of a string
            wanted[fast.convert_tokens_to_ids("]")] = False
        assert order.first(wanted) == token, every[at]


def test_only_a_quote_closes_a_string() -> None:
    known, fast = vocabulary()
    order = ClosingOrder(known.tokens, known.end_ids, len(fast))
    assert fast.decode([order.first(np.ones(len(fast), dtype=bool))])[0] == '"'


@pytest.mark.parametrize("added", [(), (OPEN,), (OPEN, CLOSE)])
def test_marks_of_a_call_are_spelled_as_the_vocabulary_has_them(added) -> None:
    known, fast = vocabulary(*added)
    single = [mark for mark in (OPEN, CLOSE) if known.is_added(mark)]
    assert single == list(added)
    matcher = known.matcher(tool_grammar([TOOL], "add", single_tokens=single))
    path = known.shortest_end(matcher)
    assert path is not None
    text = fast.decode(path, skip_special_tokens=True)
    assert text.startswith(f'{OPEN}\n{{"name":') or text.startswith(f'{OPEN}\n{{ "name"'), text
    assert text.rstrip().endswith(CLOSE)
    for mark in (OPEN, CLOSE):
        assert (fast.convert_tokens_to_ids(mark) in path) == (mark in added)
