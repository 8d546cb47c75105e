"""Loads a student's model and tokenizer."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.int8 import quantize

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")

LOADING = threading.RLock()
"""Held while a model is loaded: transformers leaves weights empty where two loads overlap."""


def taken(model: Any, tokenizer: Any, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Take a loaded model as it is, or load one; hold `LOADING` meanwhile.

    Args:
        model: A folder, a hub id or a loaded model.
        tokenizer: Its tokenizer, which a loaded model needs.
        device: Where to load the model; None for the CPU.
        dtype: As for `from_path`.

    Returns:
        The model and the tokenizer.

    Raises:
        ValueError: If a loaded model lacks its tokenizer, or is to become ``int8``.
    """
    if isinstance(model, str):
        return from_path(model, tokenizer, device, dtype)
    if dtype == "int8":
        raise ValueError("dtype='int8' needs model= to be a folder or a hub id")
    if tokenizer is None:
        raise ValueError("student needs tokenizer= beside a loaded model")
    return model, tokenizer


def from_path(path: str, tokenizer: Any, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a folder or a hub id.

    Args:
        path: The folder or hub id.
        tokenizer: A tokenizer to take instead, or None.
        device: Where to put the model; None for the CPU.
        dtype: ``auto``, ``int8``, or the name of a torch type.

    Returns:
        The model and the tokenizer.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no model or no tokenizer.
        StudentError: If they cannot be loaded.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    if dtype == "int8" and torch.device(device or "cpu").type != "cpu":
        raise ValueError(f"dtype='int8' runs on a CPU, not on device={device!r}; use 'bfloat16'")
    folder = Path(path).expanduser()
    if not folder.is_dir() and (not _HUB_ID.fullmatch(path) or folder.exists()):
        raise FileNotFoundError(f"student={path!r} is not a folder, nor a hub id (owner/name)")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"student={path!r} holds no config.json, so no model")
        if tokenizer is None and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise FileNotFoundError(
                f"student={path!r} holds no tokenizer (tokenizer.json); save one there with "
                "tokenizer.save_pretrained(folder)"
            )
    source = str(folder) if folder.is_dir() else path
    try:
        config = AutoConfig.from_pretrained(source)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(source) if tokenizer is None else tokenizer
        saved = "float32" if dtype == "int8" else dtype
        model: Any = kind.from_pretrained(source, dtype=saved)
    except (OSError, ValueError) as error:
        raise StudentError(
            f"student={path!r} could not be loaded ({error}); give a folder made by "
            "save_pretrained, or a hub id that is reachable or in the local cache"
        ) from error
    model = model.to(device or "cpu")
    if dtype == "int8":
        model = quantize(model)
    if dtype == "auto" and model.dtype == torch.float16 and model.device.type == "cpu":
        model = model.float()  # CPUs compute float16 slowly
    return model, tokenizer
