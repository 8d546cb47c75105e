"""Loads a transformers model and its tokenizer, for torch."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from langchain_gkt.errors import (
    ConfigurationError,
    MissingPackageError,
    StudentError,
    bounded,
    nearest,
)
from langchain_gkt.students.backends.gguf import (
    gguf_source,
    load_tokenizer,
    local_file,
    read_header,
)
from langchain_gkt.students.backends.pytorch.adapters import (
    ADAPTER_CONFIG,
    base_of,
    with_adapter,
    without_wrapper,
)
from langchain_gkt.students.backends.source import ModelSource
from langchain_gkt.students.engine.int8 import quantize
from langchain_gkt.students.engine.int8_speed import layer_seconds, warn_if_slower
from langchain_gkt.students.engine.layers.widening import has_bfloat16, widen_linears

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # "./name" is a folder
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load_or_use(source: ModelSource) -> tuple[Any, Any]:
    """Use a loaded model as it is, or load one. Only one thread at a time may do this.

    Returns:
        The model and the tokenizer.

    Raises:
        ValueError: If a loaded model lacks its tokenizer or is to become ``int8``, or the device
            is not there.
    """
    model = source.model
    refuse_device(source.device, source.device_map)
    refuse_dtype(source.dtype)
    if (file := gguf_source(model)) is not None:
        return _from_gguf(local_file(file), source)
    if isinstance(model, str):
        return from_path(
            model,
            source.tokenizer,
            source.device,
            source.dtype,
            device_map=source.device_map,
            trust_remote_code=source.trust_remote_code,
        )
    if source.dtype == "int8" or source.device_map is not None:
        field = "dtype='int8'" if source.dtype == "int8" else "device_map"
        raise ValueError(f"{field} needs model= to be a folder or a hub id")
    if source.tokenizer is None:
        raise ValueError("student needs tokenizer= beside a loaded model")
    model = _moved(model, source.device, f"a {type(model).__name__}")
    return without_wrapper(model), source.tokenizer


def refuse_device(device: str | None, device_map: Any = None) -> None:
    """Refuse a device or device map that this torch cannot use, before anything is loaded for it.

    Raises:
        ConfigurationError: If it is unknown or not there, or both are given.
    """
    if device_map is not None and find_spec("accelerate") is None:
        raise MissingPackageError(
            f"device_map={device_map!r} needs the package accelerate",
            hint="install it with: pip install accelerate",
        )
    if device is None:
        return
    if device_map is not None:
        raise ConfigurationError(
            "device and device_map both say where the model goes; leave one of them out"
        )
    try:
        is_there = torch.empty(0, device=device).device.type != "meta"
    except Exception as error:  # torch refuses devices with errors of many kinds
        raise ConfigurationError(
            f"device={device!r} cannot be used by this torch ({torch.__version__}): "
            f"{bounded(str(error).splitlines()[0], 200)}",
            hint="leave device out for the CPU, or install a torch that is built for that device",
        ) from error
    if not is_there:
        raise ConfigurationError(f"device={device!r} computes nothing; leave device out")


def refuse_dtype(dtype: str) -> None:
    """Refuse a type that no weights can have.

    Raises:
        ConfigurationError: If it is neither ``auto`` nor ``int8`` nor the name of a torch type.
    """
    kind = getattr(torch, dtype, None)
    if dtype in ("auto", "int8") or (isinstance(kind, torch.dtype) and kind.is_floating_point):
        return
    known = ("auto", "bfloat16", "float16", "float32", "float64", "int8")
    raise ConfigurationError(
        f"dtype={dtype!r} is no type of weights; {nearest(dtype.removeprefix('torch.'), known)}"
    )


def _moved(model: Any, device: str | None, name: str) -> Any:
    """Move a model, unless it is there already."""
    if device is None:
        return model
    # As models report theirs, such as cuda:0 for cuda.
    is_there = model.device == torch.empty(0, device=device).device
    if is_there and not getattr(model, "hf_device_map", None):
        return model
    try:
        return model.to(device)
    except Exception as error:  # quantized and offloaded models refuse in ways of their own
        raise StudentError(
            f"student={name} cannot be moved to device={device!r} ({error})",
            hint="leave device out: a quantized or offloaded model stays where it was loaded; "
            "device_map= says where that is",
        ) from error


def _from_gguf(path: str, source: ModelSource) -> tuple[Any, Any]:
    """Unpack a GGUF file to weights that torch runs."""
    from transformers import GgufConfig

    if not all(map(find_spec, ("accelerate", "gguf"))):
        raise ImportError(
            "a .gguf file needs the packages accelerate and gguf to be run by torch; install "
            'them with: pip install "langchain-gkt[gguf]"'
        )
    header = read_header(path)
    tokenizer, file = source.tokenizer or load_tokenizer(path), Path(path)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype={"auto": "bfloat16", "int8": "float32"}.get(source.dtype, source.dtype),
            trust_remote_code=False,
            quantization_config=GgufConfig(dequantize=True),
            device_map=source.device_map,
        )
    except ImportError:
        raise
    except Exception as error:
        raise StudentError(
            f"student={path!r} (architecture {header.architecture}) could not be loaded ({error}); "
            'install llama.cpp, which may know it: pip install "langchain-gkt[llamacpp]"'
        ) from error
    model = _moved(model, source.device, repr(path))
    return quantize(model) if source.dtype == "int8" else model, tokenizer


def from_path(
    path: str,
    tokenizer: Any,
    device: str | None,
    dtype: str,
    *,
    device_map: Any = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a folder or a hub id, perhaps of a PEFT adapter.

    The arguments are the fields of a student. Without ``trust_remote_code`` a model that brings
    Python files is refused, without a question on standard input.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no model or no tokenizer.
        ImportError: If a package is missing that the model needs, such as peft.
        StudentError: If they cannot be loaded.
    """
    on_cpu = device_map is None and torch.device(device or "cpu").type == "cpu"
    if dtype == "int8" and not on_cpu:
        where = f"device={device!r}" if device_map is None else f"device_map={device_map!r}"
        raise ValueError(f"dtype='int8' runs on a CPU, not on {where}; use 'bfloat16'")
    folder = Path(path).expanduser()
    if not folder.is_dir() and (not _HUB_ID.fullmatch(path) or folder.exists()):
        raise FileNotFoundError(f"student={path!r} is not a folder, nor a hub id (owner/name)")
    adapter = _adapter_folder(path, folder)
    if adapter is not None:
        base = base_of(path, adapter)
        if tokenizer is None and _has_tokenizer(adapter):
            tokenizer = _load_tokenizer(path, adapter, trust_remote_code)
        try:
            model, tokenizer = _load(base, tokenizer, dtype, device_map, trust_remote_code)
        except (FileNotFoundError, StudentError) as error:
            raise StudentError(
                f"student={path!r} is an adapter, and its base model could not be loaded: {error}",
                hint=f"put the base model where {ADAPTER_CONFIG} says, or correct it there",
            ) from error
        model = with_adapter(model, tokenizer, path, adapter)
    else:
        model, tokenizer = _load(path, tokenizer, dtype, device_map, trust_remote_code)
    model = _moved(model, device, repr(path))
    if dtype == "int8":
        as_saved = layer_seconds(model) if model.dtype == torch.bfloat16 else None
        model = quantize(model)
        warn_if_slower(as_saved, as_saved and layer_seconds(model))
        return model, tokenizer
    wholly_on_cpu = all(weights.device.type == "cpu" for weights in model.parameters())
    if wholly_on_cpu and not has_bfloat16():
        widen_linears(model)
    if dtype == "auto" and wholly_on_cpu and model.dtype == torch.float16:
        model = model.float()  # CPUs compute float16 slowly
    return model, tokenizer


def _adapter_folder(path: str, folder: Path) -> Path | None:
    """Return the folder of an adapter, fetched if it is on the hub. None if it is no adapter."""
    if folder.is_dir():
        is_adapter = (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()
        return folder if is_adapter else None
    from huggingface_hub import file_exists, snapshot_download, try_to_load_from_cache

    names = (ADAPTER_CONFIG, "config.json")
    known = [isinstance(try_to_load_from_cache(path, name), str) for name in names]
    if not any(known):
        try:
            known = [file_exists(path, name) for name in names]
        except Exception:  # noqa: BLE001  loading it will say what is wrong
            return None
    return Path(snapshot_download(path)) if known == [True, False] else None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def _load_tokenizer(path: str, source: Any, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(str(source), trust_remote_code=trust_remote_code)
    except ImportError:  # it names the package
        raise
    except Exception as error:
        raise _unloadable(path, error, trust_remote_code) from error


def _load(
    path: str, tokenizer: Any, dtype: str, device_map: Any, trust_remote_code: bool
) -> tuple[Any, Any]:
    """Load a whole model, on the CPU or where the device map says."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"student={path!r} holds no config.json, so no model")
        if tokenizer is None and not _has_tokenizer(folder):
            raise FileNotFoundError(
                f"student={path!r} holds no tokenizer (tokenizer.json); save one there with "
                "tokenizer.save_pretrained(folder)"
            )
    source = str(folder) if folder.is_dir() else path
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        if tokenizer is None:
            tokenizer = _load_tokenizer(path, source, trust_remote_code)
        model, loading_info = kind.from_pretrained(  # type: ignore[misc]
            source,
            dtype="auto" if dtype == "int8" else dtype,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            device_map=device_map,
        )
    except (ImportError, StudentError):  # they name what is wrong
        raise
    except Exception as error:  # broken weights fail in many ways
        raise _unloadable(path, error, trust_remote_code, device_map) from error
    if missing := sorted(loading_info["missing_keys"]):  # transformers makes them up at random
        raise StudentError(
            f"student={path!r} lacks {len(missing)} of its weights, such as {missing[0]}",
            hint="give a folder made by save_pretrained whose files belong together",
        )
    return model, tokenizer


def _unloadable(
    path: str, error: Exception, trust_remote_code: bool, device_map: Any = None
) -> StudentError:
    if "trust_remote_code" in str(error) and not trust_remote_code:
        return StudentError(
            f"student={path!r} brings Python files of its own, which were not run; set "
            "trust_remote_code=True if you have read and trust them"
        )
    what = f"student={path!r} could not be loaded"
    if device_map is not None:
        what += f" with device_map={device_map!r}"
    return StudentError(
        f"{what} ({type(error).__name__}: {error})",
        hint="give a folder made by save_pretrained whose files are whole and belong together, "
        "or a hub id that is reachable or in the local cache"
        + ("" if device_map is None else ", and a device_map for devices of this machine"),
    )
