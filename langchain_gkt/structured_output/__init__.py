"""Structured output: JSON schemas, their grammars, and JSON that another model began."""
