"""The two steps of a call."""
