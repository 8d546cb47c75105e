"""Requests, and the text that is made of their tokens."""
