"""The fields of a student that say what runs its model, and where."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class EngineFields(BaseModel):
    """The engine of a student's model. Fields from ``base_url`` on are only for servers."""

    model_config = ConfigDict(hide_input_in_errors=True)  # it may hold the key
    device: str | None = None
    """Device to load the model on, such as ``cpu`` or ``cuda:0``. None for the CPU."""
    device_map: Any = None
    """How to spread a model over devices, as in ``from_pretrained`` of transformers (needs
    accelerate). None for one device. Only for torch.
    """
    dtype: str = "auto"
    """Weights' type: ``auto`` as saved (float16 becomes float32 on a CPU), a torch name, or
    ``int8`` for a CPU, which is faster and a little less exact. For OpenVINO the type it computes
    in. ``auto`` leaves it the choice.
    """
    backend: str = "auto"
    """The engine that runs the model, such as ``torch``. ``auto`` becomes the chosen one."""
    max_batch_size: int = 16
    """Maximum number of answers that are written at the same time. More wait in order."""
    max_queue: int = 1024
    """Maximum number of requests that wait. One more is refused with a StudentError."""
    kv_tokens: int | None = None
    """Maximum tokens of KV cache, padding included. None for 2 GiB of them (at least a context)."""
    prefix_cache_bytes: int = 256 * 2**20
    """Maximum bytes of KV cache kept of prompts for those that begin alike. 0 for none."""
    threads: int | None = None
    """Threads that compute. None for torch's number."""
    base_url: str | None = None
    """Address of the server that runs the model, such as ``http://127.0.0.1:8000/v1``. ``model``
    is then the folder or hub id of its tokenizer. No weights are loaded."""
    api_key: SecretStr | None = Field(default=None, repr=False)
    """The server's key, if it needs one."""
    served_model_name: str | None = None
    """The model's name at the server. None for the only one there."""
    request_timeout: float = Field(default=600.0, gt=0)
    """Seconds of silence from the server after which a request fails."""
    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again after its connection failed. Received text stays."""
