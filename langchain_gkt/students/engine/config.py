"""The settings of a student's engine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class EngineConfig(BaseModel):
    """How many requests and how much memory an engine may use.

    Attributes:
        max_batch_size: Maximum number of requests that are decoded together.
        max_queue: Maximum number of requests that wait beside them.
        kv_tokens: Maximum tokens of KV cache, padding included (a little slack aside). None for 2
            GiB of them, or the model's context if that is more.
        prefix_cache_bytes: Maximum bytes of KV cache that are kept of earlier prompts.
        threads: Threads that compute. None for torch's number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: int = 16
    max_queue: int = 1024
    kv_tokens: int | None = None
    prefix_cache_bytes: int = 256 * 2**20
    threads: int | None = None

    @field_validator("*")
    @classmethod
    def _refuse_too_little(cls, value: int | None, info: ValidationInfo) -> int | None:
        least = 0 if info.field_name == "prefix_cache_bytes" else 1
        if value is not None and value < least:
            none = ", or None" if info.field_name in ("kv_tokens", "threads") else ""
            raise ValueError(f"{info.field_name}={value} must be at least {least}{none}")
        return value
