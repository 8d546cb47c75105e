from __future__ import annotations

from support.models.dripping import Dripping

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.chain import strategy
from langchain_gkt.serving.catalog import Catalog


def test_each_strategy_is_a_model_and_the_default_has_the_bare_name(monkeypatch) -> None:
    chain = GuidedKnowledgeTransferChain(teacher=Dripping(), student=Dripping())
    known = {**strategy._STRATEGIES, "relay": strategy.strategy_of("guided")}
    monkeypatch.setattr(strategy, "_STRATEGIES", known)
    catalog = Catalog(chain, "pair")
    assert list(catalog.modes)[:3] == ["pair", "pair-teacher", "pair-student"]
    assert catalog.modes["pair"] == "guided"
    assert catalog.modes["pair-relay"] == "relay"
    assert catalog.describe("pair-relay")["gkt"] == {"mode": "relay"}
