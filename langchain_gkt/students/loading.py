"""Loads a student's model and tokenizer, once."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.choosing import choose_backend, gguf_source
from langchain_gkt.students.backends.gguf import load_tokenizer, local_file, read_header
from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.engine.engine import Engine, EngineConfig
from langchain_gkt.students.engine.int8 import quantize
from langchain_gkt.students.engine.int8_speed import layer_seconds, warn_if_slower
from langchain_gkt.students.engine.layers.widening import has_bfloat16, widen_linears
from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.request_builder import RequestBuilder
from langchain_gkt.students.tokenization.control_tokens import AllowedTokens

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # "./name" is a folder
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")

_GIVEN = (
    "model",
    "tokenizer",
    "device",
    "dtype",
    "backend",
    "allowed_added_tokens",
    "trust_remote_code",
)

LOADING = threading.RLock()
"""Held while a model is loaded: transformers leaves weights empty if two loads overlap."""


def name_of(model: Any) -> str:
    """Return a short name of a model: its folder, file, hub id or class.

    Args:
        model: A folder, a hub id, a file or a loaded model.
    """
    if isinstance(model, str):
        return Path(model).name
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


@dataclass(frozen=True)
class ModelSource:
    """What a student is loaded from.

    Attributes:
        model: A folder, a hub id, a GGUF file or a loaded transformers model.
        tokenizer: Its tokenizer, if it is not beside the model.
        device: Where to load it; None for the CPU.
        dtype: As for `from_path`.
        backend: The engine that was asked for, or ``auto``.
        allowed_added_tokens: As for `HuggingFaceStudent`.
        trust_remote_code: Whether to run the model's own Python files.
        config: How many requests and how much memory.
    """

    model: Any
    tokenizer: Any
    device: str | None
    dtype: str
    backend: str
    allowed_added_tokens: AllowedTokens
    trust_remote_code: bool
    config: EngineConfig

    @classmethod
    def of(cls, student: Any) -> ModelSource:
        """Take a student's fields.

        Args:
            student: The `HuggingFaceStudent`.
        """
        config = {name: getattr(student, name) for name in EngineConfig.model_fields}
        given = {name: getattr(student, name) for name in _GIVEN}
        return cls(**given, config=EngineConfig(**config))


class StudentLoader:
    """Loads what a student needs when it is first needed, and keeps it.

    Copies of a student share it. It is pickled without the weights if they can be loaded
    again from a path.
    """

    def __init__(self, source: ModelSource, loaded: RequestBuilder | None = None) -> None:
        """Choose the engine, without loading.

        Args:
            source: What to load.
            loaded: What was made of it already, if anything.

        Raises:
            ValueError: If there is no such engine, or it cannot run such a model.
            ImportError: If the engine that the user chose is not installed.
        """
        self.source, self._loaded = source, loaded
        self.choice = choose_backend(source.model, source.backend)
        self.others: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was given; a model that was given loaded goes with its engine."""
        loaded = None if isinstance(self.source.model, str) else self._loaded
        return type(self), (self.source, loaded)

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
                engine = self._make()
                prompts = PromptBuilder(engine.tokenizer, self.source.allowed_added_tokens)
                self._loaded = RequestBuilder(engine, prompts)
            return self._loaded

    def _make(self) -> Backend:
        source = self.source
        if self.choice.name == "llamacpp":
            return _with_llamacpp(source)
        if self.choice.name == "openvino":
            return _with_openvino(source)
        model, tokenizer = load_or_use(
            source.model,
            source.tokenizer,
            source.device,
            source.dtype,
            trust_remote_code=source.trust_remote_code,
        )
        return Engine(model, tokenizer, source.config)

    def other(self, name: str, student: Any) -> Any:
        """Return the student that calls name, made once.

        Args:
            name: Its folder or hub id.
            student: The student that is called; the other has its settings.

        Raises:
            StudentError: If this student is closed, also if that happens meanwhile.
        """
        if name not in self.others:
            with LOADING:
                if name not in self.others and not self._is_closed():
                    given = {field: getattr(student, field) for field in student.model_fields_set}
                    given |= {"model": name, "tokenizer": None, "backend": self.source.backend}
                    given["trust_remote_code"] = False  # that was said of the first model
                    self.others[name] = type(student)(**given)
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


def _with_llamacpp(source: ModelSource) -> Backend:
    """Load a GGUF file with llama.cpp."""
    found = gguf_source(source.model)
    assert found is not None
    if source.dtype != "auto":
        raise ValueError(
            f"dtype={source.dtype!r} cannot be had of llama.cpp, which runs a .gguf file in its "
            "own types; leave dtype out, or use backend='torch'"
        )
    header = read_header(local_file(found))
    tokenizer = source.tokenizer or load_tokenizer(header.path)
    from langchain_gkt.students.backends.llamacpp import LlamaCppBackend  # an extra

    return LlamaCppBackend(header, tokenizer, source.config, source.device)


def _with_openvino(source: ModelSource) -> Backend:
    """Load an exported folder or a GGUF file with OpenVINO."""
    from langchain_gkt.students.backends.openvino.backend import OpenVINOBackend  # an extra
    from langchain_gkt.students.backends.openvino.folder import read_source

    found = read_source(source.model, source.tokenizer)
    return OpenVINOBackend(found, source.config, source.device, source.dtype)


def load_or_use(
    model: Any,
    tokenizer: Any,
    device: str | None,
    dtype: str,
    *,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Use a loaded model as it is, or load one; hold `LOADING` meanwhile.

    Args:
        model: A folder, a hub id or a loaded model.
        tokenizer: Its tokenizer; a loaded model needs one.
        device: Where to load the model; None for the CPU.
        dtype: As for `from_path`.
        trust_remote_code: As for `from_path`.

    Returns:
        The model and the tokenizer.

    Raises:
        ValueError: If a loaded model lacks its tokenizer, or is to become ``int8``.
    """
    if (found := gguf_source(model)) is not None:
        return from_gguf(local_file(found), tokenizer, device, dtype)
    if isinstance(model, str):
        return from_path(model, tokenizer, device, dtype, trust_remote_code=trust_remote_code)
    if dtype == "int8":
        raise ValueError("dtype='int8' needs model= to be a folder or a hub id")
    if tokenizer is None:
        raise ValueError("student needs tokenizer= beside a loaded model")
    return model, tokenizer


def from_gguf(path: str, tokenizer: Any, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Unpack a GGUF file to weights that torch runs; the arguments are those of `from_path`.

    Raises:
        ImportError: If the package gguf is missing.
        StudentError: If the file cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    if not all(map(find_spec, ("accelerate", "gguf"))):
        raise ImportError(
            "a .gguf file needs the packages accelerate and gguf to be run by torch; install "
            'them with: pip install "langchain-gkt[gguf]"'
        )
    header = read_header(path)
    tokenizer = tokenizer or load_tokenizer(path)
    file, saved = Path(path), {"auto": "bfloat16", "int8": "float32"}.get(dtype, dtype)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype=saved,
            trust_remote_code=False,
            quantization_config=GgufConfig(dequantize=True),
        )
    except ImportError:
        raise
    except Exception as error:
        raise StudentError(
            f"student={path!r} (architecture {header.architecture}) could not be loaded ({error}); "
            'install llama.cpp, which may know it: pip install "langchain-gkt[llamacpp]"'
        ) from error
    model = model.to(device or "cpu")
    return quantize(model) if dtype == "int8" else model, tokenizer


def from_path(
    path: str,
    tokenizer: Any,
    device: str | None,
    dtype: str,
    *,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a folder or a hub id.

    Args:
        path: The folder or hub id.
        tokenizer: A tokenizer to use instead, or None.
        device: Where to put the model; None for the CPU.
        dtype: ``auto``, ``int8``, or the name of a torch type.
        trust_remote_code: Whether to run the Python files that the model brings along; without
            it such a model is refused, and nobody is asked on standard input.

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
        code: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(source, **code)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(source, **code)
        saved = "auto" if dtype == "int8" else dtype
        model, found = kind.from_pretrained(  # type: ignore[misc]
            source, dtype=saved, output_loading_info=True, **code
        )
    except ImportError:  # it names the package
        raise
    except Exception as error:  # broken weights fail in many ways
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise StudentError(
                f"student={path!r} brings Python files of its own, which were not run; set "
                "trust_remote_code=True if you have read and trust them"
            ) from error
        raise StudentError(
            f"student={path!r} could not be loaded ({type(error).__name__}: {error})",
            hint="give a folder made by save_pretrained whose files are whole and belong together, "
            "or a hub id that is reachable or in the local cache",
        ) from error
    if missing := sorted(found["missing_keys"]):  # transformers makes them up at random
        raise StudentError(
            f"student={path!r} lacks {len(missing)} of its weights, such as {missing[0]}",
            hint="give a folder made by save_pretrained whose files belong together",
        )
    model = model.to(device or "cpu")
    if dtype == "int8":
        as_saved = layer_seconds(model) if model.dtype == torch.bfloat16 else None
        model = quantize(model)
        warn_if_slower(as_saved, as_saved and layer_seconds(model))
    elif model.device.type == "cpu" and not has_bfloat16():
        widen_linears(model)
    if dtype == "auto" and model.dtype == torch.float16 and model.device.type == "cpu":
        model = model.float()  # CPUs compute float16 slowly
    return model, tokenizer
