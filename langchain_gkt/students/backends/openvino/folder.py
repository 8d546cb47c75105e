"""Models for OpenVINO: an exported folder or a GGUF file, checked before loading."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.gguf import (
    GGUFHeader,
    gguf_source,
    load_tokenizer,
    local_file,
    read_header,
    sampled_digest,
)
from langchain_gkt.students.engine.vocabulary import end_ids, refuse_unknown_tokens

OPENVINO_MODEL = "openvino_model.xml"
"""The file that marks an OpenVINO folder."""
EXPORT = (
    "make such a folder with: optimum-cli export openvino --model FOLDER --task "
    "text-generation-with-past --weight-format int8 OUTPUT (see the docs, engines)"
)
"""How to turn a transformers folder into an OpenVINO one."""
_HUB_OWNER = "OpenVINO/"
_KV_BYTES = 2  # at most, per number. Bfloat16, or 8 bits where OpenVINO chooses
_NEEDED = {
    "openvino_model.bin": "weights",
    "config.json": "configuration",
    "openvino_tokenizer.xml": "tokenizer of OpenVINO's own",
    "openvino_detokenizer.xml": "detokenizer of OpenVINO's own",
}


def is_openvino(model: Any) -> bool:
    """Whether a model is a folder exported for OpenVINO, or a hub id of the owner ``OpenVINO``."""
    if not isinstance(model, str):
        return False
    folder = Path(model).expanduser()
    return (folder / OPENVINO_MODEL).is_file() or (
        model.startswith(_HUB_OWNER) and not folder.exists()
    )


def has_torch_weights(model: Any) -> bool:
    """Whether a model is a folder with weights that torch can load."""
    folder = Path(str(model)).expanduser()
    return any(next(folder.glob(kind), None) for kind in ("*.safetensors", "pytorch_model*.bin"))


@dataclass(frozen=True)
class OpenVINOSource:
    """A model that OpenVINO can load."""

    path: str  # the folder, or the GGUF file
    tokenizer: Any
    context: int | None  # tokens that the model was trained for, if known
    kv_bytes_per_token: int  # at most
    end_ids: set[int]
    vocabulary: int  # length of the model's logits

    @cached_property
    def fingerprint(self) -> str:
        """A digest that differs between two sets of weights."""
        path = Path(self.path)
        return sampled_digest(path if path.is_file() else path / "openvino_model.bin")


def read_source(model: str, tokenizer: Any) -> OpenVINOSource:
    """Find and check an exported folder, a hub id of one (it is fetched), or a GGUF file.

    Raises:
        FileNotFoundError: If a file is missing.
        StudentError: If the hub cannot be reached, or a file is broken.
    """
    if (gguf_file := gguf_source(model)) is not None:
        header = read_header(local_file(gguf_file))
        return _of_gguf(header, tokenizer or load_tokenizer(header.path))
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _fetched(model)
    if not (folder / OPENVINO_MODEL).is_file():
        raise FileNotFoundError(f"student={model!r} holds no {OPENVINO_MODEL}; {EXPORT}")
    for name, what in _NEEDED.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"student={model!r} holds no {name}, the {what}; export the model again: {EXPORT}"
            )
    if tokenizer is None and not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"student={model!r} holds no tokenizer.json; copy it and tokenizer_config.json from "
            "the folder the model was exported from, or give tokenizer="
        )
    return _of_folder(folder, tokenizer)


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(model))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise StudentError(
            f"student={model!r} is no folder and could not be fetched ({error}); check the name, "
            f"or give a folder. {EXPORT}"
        ) from error


def _of_folder(folder: Path, tokenizer: Any) -> OpenVINOSource:
    from transformers import AutoTokenizer

    try:
        config = json.loads((folder / "config.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(str(folder)) if tokenizer is None else tokenizer
    except (OSError, ValueError) as error:
        raise StudentError(
            f"student={str(folder)!r} could not be read ({error}); export the model again: {EXPORT}"
        ) from error
    config = {**config, **config.get("text_config", {})}
    generation = folder / "generation_config.json"
    saved = json.loads(generation.read_text()) if generation.is_file() else config
    vocabulary = int(config.get("vocab_size", len(tokenizer)))
    refuse_unknown_tokens(tokenizer, vocabulary)
    heads = int(config.get("num_attention_heads", 1))
    size = int(config.get("head_dim") or config.get("hidden_size", 0) // heads)
    layers = int(config.get("num_hidden_layers", 1))
    numbers = 2 * layers * int(config.get("num_key_value_heads") or heads) * size
    return OpenVINOSource(
        path=str(folder),
        tokenizer=tokenizer,
        context=config.get("max_position_embeddings"),
        kv_bytes_per_token=max(1, numbers * _KV_BYTES),
        end_ids=end_ids(tokenizer, saved.get("eos_token_id")),
        vocabulary=vocabulary,
    )


def _of_gguf(header: GGUFHeader, tokenizer: Any) -> OpenVINOSource:
    if header.vocabulary is not None:
        refuse_unknown_tokens(tokenizer, header.vocabulary)
    return OpenVINOSource(
        path=header.path,
        tokenizer=tokenizer,
        context=header.context,
        kv_bytes_per_token=header.kv_bytes_per_token,
        end_ids=end_ids(tokenizer),
        vocabulary=header.vocabulary or len(tokenizer),
    )
