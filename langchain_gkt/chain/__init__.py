"""The chat model over both models: the teacher begins an answer, the student finishes it."""

from __future__ import annotations

from langchain_gkt.chain import strategies
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain

__all__ = ["GuidedKnowledgeTransferChain", "strategies"]
