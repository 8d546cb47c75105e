"""The fields of a student whose model runs behind an address."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class ServerFields(BaseModel):
    """Where a student's model is served; only for the backends of servers."""

    model_config = ConfigDict(hide_input_in_errors=True)  # it may hold the key
    base_url: str | None = None
    """Address of the server that runs the model, such as ``http://127.0.0.1:8000/v1``. ``model``
    is then the folder or hub id of its tokenizer; no weights are loaded."""
    api_key: SecretStr | None = Field(default=None, repr=False)
    """The server's key, if it wants one."""
    served_model_name: str | None = None
    """The model's name at the server; None for the only one there."""
    request_timeout: float = Field(default=600.0, gt=0)
    """Seconds without a word from the server after which a request fails."""
    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again whose connection failed; text that was written stays."""
