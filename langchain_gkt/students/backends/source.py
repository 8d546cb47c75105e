"""The fields from which a student is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.tokenization.control_tokens import AllowedTokens

_GIVEN = (
    "model",
    "tokenizer",
    "device",
    "device_map",
    "dtype",
    "backend",
    "allowed_added_tokens",
    "trust_remote_code",
    "base_url",
    "api_key",
    "served_model_name",
    "request_timeout",
    "max_retries",
)


@dataclass(frozen=True)
class ModelSource:
    """The fields of a student that say what to load, and how.

    Attributes:
        model: A folder, a hub id, a GGUF file or a loaded transformers model.
        tokenizer: Its tokenizer, if it is not beside the model.
        device: Where to load it. None for the CPU.
        device_map: How to spread it over devices, as transformers takes it. None for one device.
        dtype: The weights' type, as for `HuggingFaceStudent`.
        backend: The requested engine, or ``auto``.
        allowed_added_tokens: As for `HuggingFaceStudent`.
        trust_remote_code: Whether to run the model's own Python files.
        config: How many requests and how much memory.
        base_url: Address of the server that runs the model. None for one in this process.
        api_key: The server's key, if it wants one.
        served_model_name: The model's name at the server. None for the only one there.
        request_timeout: Seconds after which the student gives up a silent server.
        max_retries: How often a request is sent again after its connection failed.
    """

    model: Any
    tokenizer: Any
    device: str | None
    device_map: Any
    dtype: str
    backend: str
    allowed_added_tokens: AllowedTokens
    trust_remote_code: bool
    config: EngineConfig
    base_url: str | None = None
    api_key: SecretStr | None = None
    served_model_name: str | None = None
    request_timeout: float = 600.0
    max_retries: int = 2

    @classmethod
    def of(cls, student: Any) -> ModelSource:
        """Take a student's fields.

        Args:
            student: The `HuggingFaceStudent`.
        """
        config = {name: getattr(student, name) for name in EngineConfig.model_fields}
        fields = {name: getattr(student, name) for name in _GIVEN}
        return cls(**fields, config=EngineConfig(**config))


def refuse_device_map(source: ModelSource, engine: str) -> None:
    """Refuse a device map for an engine that has no use for it.

    Args:
        source: The model to load.
        engine: The engine's name as a value of the field ``backend``.

    Raises:
        ConfigurationError: If one is given.
    """
    if source.device_map is not None:
        raise ConfigurationError(
            f"device_map is not supported by backend={engine!r}; use device=, or backend='torch'"
        )


def shown(model: Any) -> str:
    """Return a model's name as messages show it.

    Args:
        model: A name, or a loaded model.
    """
    return repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
