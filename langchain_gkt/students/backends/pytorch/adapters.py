"""LoRA and other PEFT adapters: folders of weights that were trained on top of a base model."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_gkt.errors import MissingPackageError, StudentError

ADAPTER_CONFIG = "adapter_config.json"
"""The file that marks an adapter's folder."""


def base_of(path: str, folder: Path) -> str:
    """Return the base model that the adapter named ``path``, in a folder, was trained for.

    Raises:
        MissingPackageError: If the package peft is missing.
        StudentError: If its configuration is broken or names no base model.
    """
    if find_spec("peft") is None:
        raise MissingPackageError(
            f"student={path!r} is an adapter ({ADAPTER_CONFIG}), which needs the package peft",
            hint='install it with: pip install "langchain-gkt[peft]"',
        )
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudentError(
            f"student={path!r} is an adapter whose {ADAPTER_CONFIG} cannot be read "
            f"({type(error).__name__}: {error})",
            hint="give a folder that peft's save_pretrained wrote",
        ) from error
    if not base or not isinstance(base, str):
        raise StudentError(
            f"student={path!r} is an adapter whose {ADAPTER_CONFIG} names no base model",
            hint="write the folder or hub id of its base model there, as base_model_name_or_path",
        )
    return base


def without_wrapper(model: Any) -> Any:
    """Return the model inside a loaded PeftModel, whose layers hold the adapter already.

    Only prompt learning adds something in front of the model, so it stays wrapped.
    """
    config = getattr(model, "active_peft_config", None)
    if config is None or getattr(config, "is_prompt_learning", False):
        return model
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def with_adapter(model: Any, tokenizer: Any, path: str, folder: Path) -> Any:
    """Merge an adapter into its base model, which then runs like any other model.

    The base model is changed. Tokens that were added for the adapter get the embedding rows that
    were saved with it. Messages name the adapter by its ``path``.

    Raises:
        StudentError: If the adapter's files are broken, or were trained for another model.
    """
    from peft import PeftModel

    try:
        embedding = model.get_input_embeddings()
        rows = _saved_rows(model, embedding, folder)
        if rows is None:
            rows = max(len(tokenizer), embedding.weight.shape[0])
        if rows and rows != embedding.weight.shape[0]:
            model.resize_token_embeddings(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of peft itself
            # Else peft makes up missing weights, with only a warning.
            warnings.filterwarnings("error", message=".*missing adapter keys")
            return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except Exception as error:  # peft fails in many ways
        raise StudentError(
            f"student={path!r} is an adapter that could not be put on its base model "
            f"({type(error).__name__}: {error})",
            hint="give the adapter of a causal or sequence-to-sequence language model, and the "
            "base model that it was trained for",
        ) from error


def _saved_rows(model: Any, embedding: Any, folder: Path) -> int | None:
    """Return how many rows of an embedding an adapter holds, padding included.

    0 if it holds none, so that added tokens have no rows at all. None if its weights are in a
    file that only torch reads.
    """
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        return None
    from safetensors import safe_open

    name = next(name for name, module in model.named_modules() if module is embedding)
    with safe_open(weights, "pt") as saved:
        own = (key for key in saved.keys() if f".{name}." in key)  # noqa: SIM118  it is no dict
        return next((saved.get_slice(k).get_shape()[0] for k in own if k.endswith(".weight")), 0)
