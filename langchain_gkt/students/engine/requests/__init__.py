"""Requests, and the text made of their tokens."""
