"""Which engine runs a model: by what is given, and by what is installed."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

BackendName = Literal["auto", "torch", "llamacpp", "openvino"]
"""Values of the field ``backend``; ``auto`` is only ever given, never the answer."""

OPENVINO_MODEL = "openvino_model.xml"
"""The file that makes a folder one of OpenVINO's."""
EXPORT = (
    "make such a folder with: optimum-cli export openvino --model FOLDER --task "
    "text-generation-with-past --weight-format int8 OUTPUT (see the docs, engines)"
)
_OPENVINO_HUB = "OpenVINO/"
_OPENVINO_EXTRA = 'pip install "langchain-gkt[openvino]"'
_GGUF = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.gguf)", re.IGNORECASE)
_FASTER = (
    "this .gguf file is unpacked and run by torch; llama.cpp runs it as it is, usually much "
    'faster: pip install "langchain-gkt[llamacpp]"'
)


@dataclass(frozen=True)
class BackendChoice:
    """The engine that was chosen.

    Attributes:
        name: The engine's name.
        reason: Why it was chosen, to follow "because".
    """

    name: BackendName
    reason: str


@dataclass(frozen=True)
class GGUFSource:
    """Where a GGUF file is.

    Attributes:
        file: Its path, or its name in the repository.
        repo: The repository on the hub; None for a local file.
    """

    file: str
    repo: str | None = None


def gguf_source(model: Any) -> GGUFSource | None:
    """Return where the GGUF file is that a model's name stands for; None if it is no such name.

    Args:
        model: ``path/to/model.gguf``, ``owner/repo:file.gguf``, or anything else.
    """
    if not isinstance(model, str) or not model.lower().endswith(".gguf"):
        return None
    if not Path(model).expanduser().exists() and (on_hub := _GGUF.fullmatch(model)):
        return GGUFSource(on_hub["file"], on_hub["repo"])
    return GGUFSource(str(Path(model).expanduser()))


def is_openvino(model: Any) -> bool:
    """Whether a model's name stands for a folder that was exported for OpenVINO.

    Args:
        model: A folder, a hub id (those of the owner ``OpenVINO`` are), or anything else.
    """
    if not isinstance(model, str):
        return False
    folder = Path(model).expanduser()
    return (folder / OPENVINO_MODEL).is_file() or (
        model.startswith(_OPENVINO_HUB) and not folder.exists()
    )


def choose_backend(model: Any, backend: str) -> BackendChoice:
    """Choose the engine of a student.

    Args:
        model: A folder, a hub id, a GGUF file or a loaded model.
        backend: The user's choice, or ``auto``.

    Returns:
        The choice.

    Raises:
        ValueError: If there is no such engine, or it cannot run such a model.
        ImportError: If the engine that the user chose is not installed.
    """
    known = ("auto", "torch", "llamacpp", "openvino")
    if backend not in known:
        raise ValueError(f"backend={backend!r} is unknown; take one of {', '.join(known)}")
    source = gguf_source(model)
    installed = find_spec("xllamacpp") is not None
    if backend == "llamacpp":
        if source is None:
            raise ValueError(
                f"backend='llamacpp' runs GGUF files, and model={_shown(model)} is none; name a "
                ".gguf file, or leave backend out"
            )
        if not installed:
            raise ImportError(
                "backend='llamacpp' needs xllamacpp; install it with: "
                'pip install "langchain-gkt[llamacpp]"'
            )
        return BackendChoice("llamacpp", "backend='llamacpp' was asked for")
    if backend == "openvino" or (backend == "auto" and is_openvino(model)):
        return _openvino(model, backend)
    if backend == "torch":
        if is_openvino(model) and not _has_weights_of_torch(model):
            raise ValueError(
                f"backend='torch' cannot run model={_shown(model)}, which was exported for "
                "OpenVINO; name the folder it was made of, or leave backend out"
            )
        return BackendChoice("torch", "backend='torch' was asked for")
    if source is None:
        return BackendChoice("torch", "the model is no GGUF file")
    if not installed:
        _say_once(_FASTER)
        return BackendChoice("torch", "xllamacpp is not installed")
    return BackendChoice("llamacpp", "the model is a GGUF file and xllamacpp is installed")


def _openvino(model: Any, backend: str) -> BackendChoice:
    if find_spec("openvino_genai") is None:
        if backend == "auto" and _has_weights_of_torch(model):
            return BackendChoice("torch", "openvino-genai is not installed")
        what = "backend='openvino'" if backend == "openvino" else f"model={_shown(model)}"
        raise ImportError(f"{what} needs openvino-genai; install it with: {_OPENVINO_EXTRA}")
    if backend == "auto":
        return BackendChoice("openvino", "the model was exported for OpenVINO")
    if not isinstance(model, str) or (Path(model).expanduser().is_dir() and not is_openvino(model)):
        raise ValueError(
            f"backend='openvino' runs exported folders and GGUF files, and model={_shown(model)} "
            f"is none; {EXPORT}"
        )
    return BackendChoice("openvino", "backend='openvino' was asked for")


def _has_weights_of_torch(model: Any) -> bool:
    folder = Path(str(model)).expanduser()
    return any(next(folder.glob(kind), None) for kind in ("*.safetensors", "pytorch_model*.bin"))


@cache
def _say_once(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)


def _shown(model: Any) -> str:
    return repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
