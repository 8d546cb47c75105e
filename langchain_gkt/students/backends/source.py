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
    """The fields of a `HuggingFaceStudent` that say what to load, and how.

    Attributes:
        config: Its fields that say how many requests, and how much memory.
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
