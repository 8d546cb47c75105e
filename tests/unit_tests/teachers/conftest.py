"""What tests of teachers share."""

from __future__ import annotations

from typing import Any

import pytest
import tiktoken

from langchain_gkt.teachers import token_cuts


@pytest.fixture
def encoding(monkeypatch) -> Any:
    """A tiktoken encoding whose tokens are bytes, in the place of one that must be fetched."""
    token_cuts.load_tokenizer.cache_clear()
    ranks = {bytes([byte]): byte for byte in range(256)}
    made = tiktoken.Encoding(
        "o200k_base", pat_str=r"\s*\S+|\s+", mergeable_ranks=ranks, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: made)
    yield made
    token_cuts.load_tokenizer.cache_clear()
