"""The names of the completion limit in chat models."""

from __future__ import annotations

LIMIT_FIELDS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "num_predict",
    "max_new_tokens",
)
"""Fields of chat models and arguments of their calls. The first that exists is the limit."""
