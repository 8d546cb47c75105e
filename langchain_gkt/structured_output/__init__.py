"""Structured output: JSON schemas, the grammars that enforce them, and JSON begun by another."""
