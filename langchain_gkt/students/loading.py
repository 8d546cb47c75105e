"""Loads a student's model and tokenizer, once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.engine import Engine, EngineConfig
from langchain_gkt.students.engine.int8 import quantize
from langchain_gkt.students.engine.layers.widening import has_bfloat16, widen_linears
from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.request_builder import RequestBuilder

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # "./name" is a folder
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")

LOADING = threading.RLock()
"""Held while a model is loaded: transformers leaves weights empty if two loads overlap."""


class StudentLoader:
    """Loads what a student needs when it is first needed, and keeps it.

    Copies of a student share it. It is pickled without the weights if they can be loaded
    again from a path.
    """

    def __init__(
        self, model: Any, tokenizer: Any, device: str | None, dtype: str, config: EngineConfig
    ) -> None:
        """Prepare, without loading; the first four are as for `load_or_use`."""
        self._given = model, tokenizer, device, dtype
        self._config = config
        self._loaded: RequestBuilder | None = None
        self.others: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was given; a model that was given loaded goes with its engine."""
        loaded = None if isinstance(self._given[0], str) else self._loaded
        return _restored, (*self._given, self._config, loaded)

    def __deepcopy__(self, memo: dict[int, Any]) -> StudentLoader:
        """Share it: copies of a student differ in settings alone."""
        return self

    def load(self) -> RequestBuilder:
        """Return what builds the student's requests; the first call loads the model.

        Raises:
            FileNotFoundError: If a folder does not exist or holds no model or no tokenizer.
            StudentError: If the model cannot be loaded.
        """
        if self._loaded is not None:
            return self._loaded
        with LOADING:
            if self._loaded is None:
                model, tokenizer = load_or_use(*self._given)
                engine = Engine(model, tokenizer, self._config)
                self._loaded = RequestBuilder(engine, PromptBuilder(tokenizer))
            return self._loaded

    def other(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the student that calls name, made once.

        Args:
            name: Its folder or hub id.
            make: Makes it.

        Raises:
            StudentError: If this student is closed, also if that happens meanwhile.
        """
        if name not in self.others:
            with LOADING:
                if name not in self.others and not self._is_closed():
                    self.others[name] = make()
        if self._is_closed():  # perhaps while the other was loaded, so close() missed it
            self.close()
            raise StudentError("the student is closed; make a new one")
        return self.others[name]

    def _is_closed(self) -> bool:
        return self._loaded is not None and self._loaded.engine.closed

    def close(self) -> None:
        """Close the engine if it was loaded, and the students that calls named."""
        if self._loaded is not None:
            self._loaded.engine.close()
        for other in list(self.others.values()):
            other.close()


def _restored(
    model: Any,
    tokenizer: Any,
    device: str | None,
    dtype: str,
    config: EngineConfig,
    loaded: RequestBuilder | None,
) -> StudentLoader:
    loader = StudentLoader(model, tokenizer, device, dtype, config)
    loader._loaded = loaded
    return loader


def load_or_use(model: Any, tokenizer: Any, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Use a loaded model as it is, or load one; hold `LOADING` meanwhile.

    Args:
        model: A folder, a hub id or a loaded model.
        tokenizer: Its tokenizer; a loaded model needs one.
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
        tokenizer: A tokenizer to use instead, or None.
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
        saved = "auto" if dtype == "int8" else dtype
        model: Any = kind.from_pretrained(source, dtype=saved)
    except (OSError, ValueError) as error:
        raise StudentError(
            f"student={path!r} could not be loaded ({error}); give a folder made by "
            "save_pretrained, or a hub id that is reachable or in the local cache"
        ) from error
    model = model.to(device or "cpu")
    if dtype == "int8":
        model = quantize(model)
    elif model.device.type == "cpu" and not has_bfloat16():
        widen_linears(model)
    if dtype == "auto" and model.dtype == torch.float16 and model.device.type == "cpu":
        model = model.float()  # CPUs compute float16 slowly
    return model, tokenizer
