"""Which beginning of a text a grammar allows."""

from __future__ import annotations

from support.work import TEXT, Work

from langchain_gkt.structured_output import grammar as grammars
from langchain_gkt.structured_output.grammar import json_grammar, valid_prefix
from langchain_gkt.structured_output.schema import json_edge


def test_prefixes() -> None:
    grammar = json_grammar(Work.model_json_schema())
    assert valid_prefix(TEXT, grammar) == (TEXT, True)
    assert valid_prefix(TEXT + " bye", grammar) == (TEXT, True)
    assert valid_prefix(TEXT[:40], grammar) == (TEXT[:40], False)
    for size in range(len(TEXT)):
        assert TEXT.startswith(json_edge(TEXT[:size]))
        assert json_edge(TEXT).startswith(json_edge(TEXT[:size]))


def test_only_small_schemas_are_kept() -> None:
    def kept(schema) -> int:
        before = grammars._kept_grammar.cache_info().currsize
        assert json_grammar(schema) == json_grammar(schema)
        return grammars._kept_grammar.cache_info().currsize - before

    grammars._kept_grammar.cache_clear()
    small = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert kept(small) == 1
    assert kept({**small, "description": "x" * 900_000}) == 0
