"""GGUF files: their header, read without the weights, and their tokenizer."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from langchain_gkt.errors import StudentError

# The types of metadata values by their numbers (the GGUF specification of the ggml project).
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_EMBEDDING = "token_embd.weight"
_FLOAT32_FILE = 0  # a value of general.file_type: all weights are float32
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.gguf)", re.IGNORECASE)
_ALIGNMENT = 32  # of the weights, in bytes, unless the file says otherwise


@dataclass(frozen=True)
class GGUFSource:
    """Where a GGUF file is."""

    file: str  # its path, or its name in the repository
    repo: str | None = None  # on the hub. None for a local file


def gguf_source(model: Any) -> GGUFSource | None:
    """Return where a GGUF file (``b.gguf`` or ``owner/repo:b.gguf``) is. None for other models."""
    if not isinstance(model, str) or not model.lower().endswith(".gguf"):
        return None
    if not Path(model).expanduser().exists() and (on_hub := _ON_HUB.fullmatch(model)):
        return GGUFSource(on_hub["file"], on_hub["repo"])
    return GGUFSource(str(Path(model).expanduser()))


@dataclass(frozen=True)
class GGUFHeader:
    """The metadata of a GGUF file. Arrays of strings are left out."""

    path: str
    metadata: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The model's architecture, such as ``llama``."""
        return str(self.metadata["general.architecture"])

    def value(self, key: str, default: Any = None) -> Any:
        """Return a value by its key, of which the architecture's name is left out."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def context(self) -> int | None:
        """Tokens of the context that the model was trained for."""
        size = self.value("context_length")
        return None if size is None else int(size)

    @property
    def vocabulary(self) -> int | None:
        """Rows of the embedding. None if the file does not say."""
        rows = self.value("vocab_size", self.metadata.get(_EMBEDDING))
        return None if rows is None else int(rows)

    @property
    def is_float32(self) -> bool:
        """Whether all weights are float32."""
        return bool(self.metadata.get("general.file_type") == _FLOAT32_FILE)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of a KV cache for each token, in float32 for such weights, else in float16."""
        layers = int(self.value("block_count", 1))
        heads = self.value("attention.head_count", 1)
        kv_heads = self.value("attention.head_count_kv", heads)
        total = sum(kv_heads) if isinstance(kv_heads, list) else layers * int(kv_heads)
        most = max(heads) if isinstance(heads, list) else int(heads)
        size = int(self.value("embedding_length", 0)) // max(1, most)
        both = int(self.value("attention.key_length", size))
        both += int(self.value("attention.value_length", size))
        return max(1, total * both * (4 if self.is_float32 else 2))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of a sample of the file's bytes. It differs between two files."""
        return sampled_digest(Path(self.path))


def sampled_digest(path: Path) -> str:
    """Return a digest of a sample of a file's bytes. It differs between two files."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for part in range(_SAMPLES):
            file.seek(size * part // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def local_file(source: GGUFSource) -> str:
    """Return the path of a GGUF file, fetched from the hub if it is there.

    Raises:
        FileNotFoundError: If there is no such local file.
        StudentError: If the hub cannot be reached or has no such file.
    """
    if source.repo is None:
        if not Path(source.file).is_file():
            raise FileNotFoundError(
                f"student={source.file!r} is not there; give the path of a .gguf file, or "
                "owner/repo:file.gguf for one on the hub"
            )
        return source.file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return str(hf_hub_download(source.repo, source.file))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise StudentError(
            f"student='{source.repo}:{source.file}' could not be fetched ({error}); check the "
            "names, or give the path of a .gguf file"
        ) from error


def read_header(path: str) -> GGUFHeader:
    """Read the header of a GGUF file.

    Raises:
        StudentError: If it is not a GGUF file, is broken, or describes no language model.
    """
    try:
        with open(path, "rb") as file:
            metadata = _read_metadata(file)
    except (struct.error, UnicodeDecodeError, KeyError, ValueError, OverflowError) as error:
        raise StudentError(
            f"student={path!r} is no whole GGUF file ({error}); fetch it again, or name another"
        ) from error
    header = GGUFHeader(path, metadata)
    if "general.architecture" not in metadata or header.context is None:
        raise StudentError(
            f"student={path!r} describes no language model (no architecture or no context "
            "length); name the file of a model, not of an adapter or a vocabulary"
        )
    return header


def load_tokenizer(path: str) -> Any:
    """Make the tokenizer that a GGUF file describes, with its chat template.

    Raises:
        ImportError: If the package gguf is missing.
        StudentError: If transformers cannot make a tokenizer of it.
    """
    from transformers import AutoTokenizer

    file = Path(path)
    try:
        return AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, trust_remote_code=False
        )
    except ImportError as error:
        raise ImportError(
            "the tokenizer of a .gguf file needs the package gguf; install it with: "
            'pip install "langchain-gkt[gguf]"'
        ) from error
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise StudentError(
            f"the tokenizer of student={path!r} could not be made ({error}); if llama.cpp knows "
            "this architecture, give tokenizer=, loaded from the model's folder; else name "
            "another model"
        ) from error


def _read_metadata(file: BinaryIO) -> dict[str, Any]:
    if file.read(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version, tensors, count = _unpack(file, "<IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version} is unknown")
    metadata = {}
    for _ in range(count):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        value = _value(file, kind)
        if value is not None:
            metadata[key] = value
    rows = _check_tensors(file, tensors, int(metadata.get("general.alignment", _ALIGNMENT)))
    if rows is not None:
        metadata[_EMBEDDING] = rows
    return metadata


def _check_tensors(file: BinaryIO, tensors: int, alignment: int) -> int | None:
    """Refuse a file that ends before its last tensor, as a broken download does.

    Returns:
        Rows of the embedding, or None without one.
    """
    last, rows = -1, None
    for _ in range(tensors):
        name = _string(file)
        (dimensions,) = _unpack(file, "<I")
        *sizes, _, offset = _unpack(file, f"<{dimensions}QIQ")
        if name == _EMBEDDING:
            rows = sizes[-1]
        last = max(last, offset)
    begin = -(-file.tell() // alignment) * alignment
    size = file.seek(0, 2)
    if tensors and begin + last >= size:
        raise ValueError(f"it ends after {size:,} bytes, before its weights do")
    return rows


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO) -> str:
    (size,) = _unpack(file, "<Q")
    return file.read(size).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    """Read a value. None for an array of strings or of arrays, which is skipped."""
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _unpack(file, f"<{_SCALARS[kind]}")[0]
    inner, count = _unpack(file, "<IQ")
    if inner in _SCALARS:
        return list(_unpack(file, f"<{count}{_SCALARS[inner]}"))
    for _ in range(count):
        if inner == _STRING:
            (size,) = _unpack(file, "<Q")
            file.seek(size, 1)
        else:
            _value(file, inner)
    return None
