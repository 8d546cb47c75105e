"""Faults of a provider, and what must come of each."""
