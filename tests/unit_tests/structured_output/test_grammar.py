"""Which beginning of a text a grammar allows."""

from __future__ import annotations

from support.work import TEXT, Work

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
