"""Bounds of a call: its deadline, and a breaker for a teacher that keeps failing."""

from langchain_gkt.chain.reliability.breaker import CircuitBreaker

__all__ = ["CircuitBreaker"]
