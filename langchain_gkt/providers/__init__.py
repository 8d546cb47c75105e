"""Differences between providers: names of limits, reports of usage, errors."""
