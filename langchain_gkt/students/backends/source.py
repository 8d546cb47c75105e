"""The fields from which a student is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pydantic import SecretStr

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.tokenization.control_tokens import AllowedTokens


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
        base_url: Address of the server that runs the model. None for one in this process.
        api_key: The server's key, if it wants one.
        served_model_name: The model's name at the server. None for the only one there.
        request_timeout: Seconds after which the student gives up a silent server.
        max_retries: How often a request is sent again after its connection failed.
        config: How many requests and how much memory.
    """

    model: Any
    tokenizer: Any
    device: str | None
    device_map: Any
    dtype: str
    backend: str
    allowed_added_tokens: AllowedTokens
    trust_remote_code: bool
    base_url: str | None
    api_key: SecretStr | None
    served_model_name: str | None
    request_timeout: float
    max_retries: int
    config: EngineConfig

    @classmethod
    def of(cls, student: Any) -> ModelSource:
        """Take the fields of a `HuggingFaceStudent`."""
        config = {name: getattr(student, name) for name in EngineConfig.model_fields}
        names = [field.name for field in fields(cls) if field.name != "config"]
        own = {name: getattr(student, name) for name in names}
        return cls(**own, config=EngineConfig(**config))


def refuse_device_map(source: ModelSource, engine: str) -> None:
    """Refuse a device map for an engine, by its value of ``backend``, that has no use for one.

    Raises:
        ConfigurationError: If one is given.
    """
    if source.device_map is not None:
        raise ConfigurationError(
            f"device_map is not supported by backend={engine!r}; use device=, or backend='torch'"
        )


def shown(model: Any) -> str:
    """Return the name of a model, perhaps a loaded one, as messages show it."""
    return repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
