"""Choosing question by question: a predictor learned from a sweep, and what it is worth."""
