"""The settings of a student's engine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class EngineConfig(BaseModel):
    """How many requests and how much memory an engine may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: int = 16  # requests that are decoded together, at most
    max_queue: int = 1024  # requests that wait beside them
    kv_tokens: int | None = None  # padding included. None for 2 GiB of them, or a whole context
    prefix_cache_bytes: int = 256 * 2**20  # of KV cache that is kept of earlier prompts
    threads: int | None = None  # that compute. None for torch's number

    @field_validator("*")
    @classmethod
    def _refuse_too_little(cls, value: int | None, info: ValidationInfo) -> int | None:
        least = 0 if info.field_name == "prefix_cache_bytes" else 1
        if value is not None and value < least:
            none = ", or None" if info.field_name in ("kv_tokens", "threads") else ""
            raise ValueError(f"{info.field_name}={value} must be at least {least}{none}")
        return value
