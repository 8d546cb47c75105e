"""OpenVINO as a student's engine: the backend named ``openvino``."""

from __future__ import annotations

import math
import os
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import openvino
import openvino_genai
import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.openvino.folder import OpenVINOSource
from langchain_gkt.students.backends.openvino.scheduler import OpenVINOScheduler
from langchain_gkt.students.backends.openvino.state import OpenVINOState
from langchain_gkt.students.engine.base import LocalEngine
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.forks import refuse_forked
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.protocol import FirstTokenDetail

_GIB = 2**30
_DEFAULT_CACHE = 2  # GiB
_CPU_BLOCK = 32  # tokens of KV cache that OpenVINO allocates together on a CPU
_PRECISIONS = {"float32": ("FP32", "f32"), "bfloat16": ("BF16", "bf16"), "float16": ("FP16", "f16")}
"""OpenVINO's names of types: as a device capability, and as a setting."""


class OpenVINOBackend(LocalEngine):
    """A model that OpenVINO has loaded."""

    name = "openvino"
    first_token_detail: FirstTokenDetail = "probabilities"
    repeatable: Literal["alone"] = "alone"  # the last digits of logits depend on the neighbours
    _state_type = OpenVINOState

    def __init__(
        self,
        source: OpenVINOSource,
        config: EngineConfig,
        device: str | None,
        dtype: str = "auto",
    ) -> None:
        """Load the weights for a device of OpenVINO's, such as ``GPU``. None for the CPU.

        It computes in ``float32``, ``bfloat16`` or ``float16``. ``auto`` is OpenVINO's choice, on a
        CPU bfloat16 if it has the instructions. Weights stay as they were exported.

        Raises:
            ValueError: If OpenVINO does not know the device here, or cannot compute in that type.
            StudentError: If it cannot load the model, or the tokenizer is not a fast one.
        """
        super().__init__(source.tokenizer)
        self._source, self._device = source, _device(device)
        self._precision = precision_of(dtype, self._device)
        self.end_ids, self.vocabulary = source.end_ids, source.vocabulary
        limits = [limit for limit in (source.context, config.kv_tokens) if limit is not None]
        self.window = ContextWindow(min(limits, default=None))
        self._pid = os.getpid()
        self._scheduler = OpenVINOScheduler(
            partial(_open, source, config, self._device, self._precision),
            config,
            self.end_ids,
            lambda: self.spelling,
        )

    @property
    def description(self) -> str:
        """What runs the model, for people."""
        name = f"OpenVINO GenAI {version('openvino-genai')}, {self._device}"
        return f"{name}, computing in {self._precision}"

    @property
    def closed(self) -> bool:
        """Whether requests are refused, because `close` was called."""
        return self._scheduler.queue.closed

    @property
    def fingerprint(self) -> str:
        """A digest that differs between two sets of weights."""
        return self._source.fingerprint

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Prefill a prompt. The request with the same prompt waits for it and uses it."""
        fits = bool(prompt) and (self.window.size is None or len(prompt) < self.window.size)
        fits = fits and os.getpid() == self._pid  # a forked child has no thread for it
        ahead = self._scheduler.prefill_ahead(prompt, fits=fits)
        _ = self.spelling  # there is time now, and a begun answer will need it
        return ahead

    def close(self) -> None:
        """End the thread and free the weights. Requests that still run get a StudentError."""
        if os.getpid() == self._pid:  # else the thread stayed with the parent
            self._scheduler.close()

    def _send(self, state: RequestState) -> None:
        refuse_forked(self._pid, "OpenVINO")
        self._scheduler.queue.submit(state)


def _device(device: str | None) -> str:
    wanted, known = (device or "cpu").upper(), openvino.Core().available_devices
    if wanted != "CPU" and wanted not in known:
        raise ValueError(
            f"device={device!r} is none of OpenVINO's here ({', '.join(known)}); leave device "
            "out for the CPU, or use backend='torch'"
        )
    return wanted


def precision_of(dtype: str, device: str) -> str:
    """Return OpenVINO's name for a type to compute in on a device. ``auto`` is its own choice.

    Raises:
        ValueError: If OpenVINO does not compute in it there.
    """
    core = openvino.Core()
    if dtype == "auto":
        return str(core.get_property(device, "INFERENCE_PRECISION_HINT").get_type_name())
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    known = [name for name, (ability, _) in _PRECISIONS.items() if ability in able]
    if dtype not in known:
        raise ValueError(
            f"dtype={dtype!r} is none that OpenVINO computes in here ({', '.join(known)}); leave "
            "dtype out. Weights stay as they were exported: --weight-format fp16, int8 or int4"
        )
    return _PRECISIONS[dtype][1]


def properties_for(device: str, precision: str, threads: int) -> dict[str, object]:
    """Return the properties with which OpenVINO runs a model on a device, in its own names."""
    properties: dict[str, object] = {"INFERENCE_PRECISION_HINT": precision}
    if device == "CPU":
        # Pinned threads of all OpenVINO models on a machine would share the same first cores.
        properties |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        if precision == "bf16":
            # OpenVINO's default, 8 bits, takes less room, but every step has to unpack them.
            properties["KV_CACHE_PRECISION"] = "bf16"
    return properties


def _open(source: OpenVINOSource, config: EngineConfig, device: str, precision: str) -> Any:
    settings = openvino_genai.SchedulerConfig()
    settings.max_num_seqs = config.max_batch_size + 1  # one prompt may be prefilled ahead
    settings.enable_prefix_caching = config.prefix_cache_bytes > 0
    if config.kv_tokens is not None and device == "CPU":
        settings.num_kv_blocks = math.ceil(config.kv_tokens / _CPU_BLOCK) + config.max_batch_size
    else:
        context = (config.kv_tokens or source.context or 1) * source.kv_bytes_per_token
        settings.cache_size = max(_DEFAULT_CACHE, math.ceil(context / _GIB))
    properties = properties_for(device, precision, config.threads or torch.get_num_threads())
    try:
        return openvino_genai.ContinuousBatchingPipeline(source.path, settings, device, properties)
    except RuntimeError as error:
        raise StudentError(
            f"OpenVINO could not load student={source.path!r} ({error}); export the model's "
            "folder again, use a newer openvino-genai, or for a .gguf file backend='llamacpp'"
        ) from error
