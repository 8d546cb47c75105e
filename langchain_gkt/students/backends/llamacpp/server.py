"""The settings of llama.cpp's server: slots, threads, device."""

from __future__ import annotations

import secrets
from typing import Any

import torch
import xllamacpp

from langchain_gkt.students.backends.gguf import GGUFHeader
from langchain_gkt.students.engine.config import EngineConfig

_DEFAULT_KV_BYTES = 2 * 2**30
# With fewer slots of a whole context each, all slots share one pool instead, which is slower.
_FEWEST_OWN_SLOTS = 4
_QUIET, _ALL_LAYERS = -1, 999
# Ids of a prompt that are read at once. A request can be cancelled between two such parts.
_PROMPT_PART = 512


def capacity(header: GGUFHeader, config: EngineConfig) -> tuple[int, int, bool]:
    """Divide the KV cache into slots.

    Returns:
        How many slots, the tokens of each, and whether they share one pool of that size.
    """
    context = header.context or 1
    default = max(_DEFAULT_KV_BYTES // header.kv_bytes_per_token, context)
    pool = default if config.kv_tokens is None else config.kv_tokens
    own = min(pool // context, config.max_batch_size)
    if own >= min(_FEWEST_OWN_SLOTS, config.max_batch_size):
        return own, context, False
    return config.max_batch_size, pool, True


def server_parameters(
    header: GGUFHeader, rows: int, tokens: int, unified: bool, device: str, threads: int | None
) -> Any:
    """Return the settings of llama.cpp's server.

    Args:
        header: The file.
        rows: How many slots.
        tokens: Tokens of each, or of the pool that they share.
        unified: Whether they share one pool.
        device: ``cpu``, or ``cuda`` (with a number, perhaps) for all layers.
        threads: Threads that compute. None for torch's number.

    Raises:
        ValueError: If this build of xllamacpp cannot use the device.
    """
    parameters = xllamacpp.CommonParams()
    parameters.model.path = header.path
    parameters.n_parallel = rows
    parameters.kv_unified = unified
    parameters.n_ctx = tokens if unified else tokens * rows
    parameters.n_batch = _PROMPT_PART
    parameters.fit_params = False
    parameters.cpuparams.n_threads = threads or torch.get_num_threads()
    parameters.cpuparams_batch.n_threads = parameters.cpuparams.n_threads
    if header.is_float32:  # exact throughout. Else keys and values would be rounded to float16
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        kinds = xllamacpp.llama_flash_attn_type
        parameters.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.verbosity = _QUIET
    # The server opens a port of this machine. Nobody else may use it.
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.api_keys = [secrets.token_hex()]
    parameters.ui = parameters.endpoint_slots = False
    kind, _, number = device.partition(":")
    if kind == "cpu":
        parameters.n_gpu_layers = 0
        return parameters
    kinds = {str(info["type"]) for info in xllamacpp.get_device_info()}
    if not any("GPU" in name for name in kinds):
        raise ValueError(
            f"device={device!r} needs a build of xllamacpp for that device, and this one has none; "
            "install such a wheel (its README names the index), or leave device out"
        )
    parameters.n_gpu_layers, parameters.main_gpu = _ALL_LAYERS, int(number or 0)
    return parameters
