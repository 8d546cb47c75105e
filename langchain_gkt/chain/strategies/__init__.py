"""How an answer is made: one file for each strategy. Importing this registers them."""

from langchain_gkt.chain.strategies import guided, single, verified

__all__ = ["guided", "single", "verified"]
