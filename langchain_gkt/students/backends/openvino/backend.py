"""OpenVINO as a student's engine: the backend named ``openvino``."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Literal

import openvino
import openvino_genai
import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.openvino.folder import OpenVINOSource
from langchain_gkt.students.backends.openvino.scheduler import OpenVINOScheduler
from langchain_gkt.students.backends.openvino.state import OpenVINOState
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.delivery import Deliver, areceive, receive
from langchain_gkt.students.engine.prefill_handle import PrefillHandle
from langchain_gkt.students.engine.requests.detokenizer import Detokenizer
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.engine.token_healing import Healing, TokenSpelling
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail

_GIB = 2**30
_DEFAULT_CACHE = 2  # GiB
_CPU_BLOCK = 32  # tokens of KV cache that OpenVINO allocates together on a CPU
_PRECISIONS = {"float32": ("FP32", "f32"), "bfloat16": ("BF16", "bf16"), "float16": ("FP16", "f16")}
"""OpenVINO's names of types: as a device capability, and as a setting."""
_CANNOT_FORK = (
    "a student run by OpenVINO cannot work in a forked process; make children with the start "
    "method 'spawn', or use backend='torch'"
)


class OpenVINOBackend:
    """A model that OpenVINO has loaded."""

    name = "openvino"
    unsupported: Mapping[Any, str] = MappingProxyType({})
    first_token_detail: FirstTokenDetail = "probabilities"

    def __init__(
        self,
        source: OpenVINOSource,
        config: EngineConfig,
        device: str | None,
        dtype: str = "auto",
    ) -> None:
        """Load the weights.

        Args:
            source: The model and its tokenizer.
            config: How many requests and how much memory.
            device: An OpenVINO device, such as ``GPU``. None for the CPU.
            dtype: The type it computes in: ``float32``, ``bfloat16`` or ``float16``. ``auto``
                for OpenVINO's choice, on a CPU bfloat16 if it has the instructions. Weights
                stay as they were exported.

        Raises:
            ValueError: If OpenVINO does not know the device here, or cannot compute in that type.
            StudentError: If it cannot load the model, or the tokenizer is not a fast one.
        """
        if not hasattr(source.tokenizer, "backend_tokenizer"):
            raise StudentError(
                f"the student's tokenizer ({type(source.tokenizer).__name__}) is not a fast one; "
                "give a folder with a tokenizer.json"
            )
        self._source, self.tokenizer = source, source.tokenizer
        self._device, self._config = _device(device), config
        self._precision = precision_of(dtype, self._device)
        self.end_ids = set(source.end_ids)
        limits = [limit for limit in (source.context, config.kv_tokens) if limit is not None]
        self.window = ContextWindow(min(limits, default=None))
        self._pid = os.getpid()
        self._scheduler = OpenVINOScheduler(
            partial(_open, source, config, self._device, self._precision),
            config,
            source.end_ids,
            lambda: self.spelling,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenVINOBackend:
        """Share the weights: copies of a student differ in settings alone."""
        return self

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
    def vocabulary(self) -> int:
        """Length of the model's logits."""
        return self._source.vocabulary

    @cached_property
    def spelling(self) -> TokenSpelling:
        """The bytes of each token, read from the vocabulary at first use."""
        return TokenSpelling(self.tokenizer, self.vocabulary)

    @property
    def repeatable(self) -> Literal["always", "alone"]:
        """``alone``, because in a batch the last digits of the logits depend on the neighbours."""
        return "alone"

    @property
    def fingerprint(self) -> str:
        """A digest that differs between two sets of weights."""
        return self._source.fingerprint

    def prefill(self, prompt: list[int]) -> PrefillHandle:
        """Prefill a prompt. The request with the same prompt waits for it and uses it.

        Args:
            prompt: Ids of the conversation, with the header of the answer.

        Returns:
            A handle. Closing it stops.
        """
        fits = bool(prompt) and (self.window.size is None or len(prompt) < self.window.size)
        ahead = self._scheduler.prefill_ahead(prompt, fits=fits)
        _ = self.spelling  # there is time now, and a begun answer will need it
        return ahead

    def generate(
        self, request: Request, cancelled: threading.Event, *, stream: bool = True
    ) -> Generator[TokenChunk, None, None]:
        """Generate one answer. See `Backend.generate`."""
        if not cancelled.is_set():
            yield from receive(partial(self._submit, request, cancelled, stream, None))

    async def agenerate(
        self, request: Request, *, stream: bool = True
    ) -> AsyncGenerator[TokenChunk, None]:
        """Do what `generate` does, on the event loop."""
        submit = partial(self._submit, request, threading.Event(), stream, None)
        async with aclosing(areceive(submit)) as chunks:
            async for chunk in chunks:
                yield chunk

    def first_tokens(self, request: Request) -> list[FirstToken]:
        """Return how likely each token of an answer was. Their entropy is unknown."""
        log_probs: list[tuple[int, float]] = []
        bare = replace(request, constraint=None, stop=(), seam=None)
        for _ in receive(partial(self._submit, bare, threading.Event(), False, log_probs)):
            pass
        return [
            FirstToken(min(1.0, math.exp(log_prob)), text=self.tokenizer.decode([token]))
            for token, log_prob in log_probs
        ]

    async def afirst_tokens(self, request: Request) -> list[FirstToken]:
        """Do what `first_tokens` does, on the event loop."""
        return await asyncio.to_thread(self.first_tokens, request)

    def close(self) -> None:
        """End the thread and free the weights. Requests that still run get a StudentError."""
        if os.getpid() == self._pid:  # else the thread stayed with the parent
            self._scheduler.close()

    def _submit(
        self,
        request: Request,
        cancelled: threading.Event,
        stream: bool,
        log_probs: list[tuple[int, float]] | None,
        deliver: Deliver,
    ) -> Callable[[], None]:
        """Check a request and queue it. Return what cancels it."""
        if os.getpid() != self._pid:
            raise StudentError(_CANNOT_FORK)
        self.window.refuse_request(request)
        state = OpenVINOState(
            request=request,
            ids=[*request.prompt, *request.kept],
            deliver=deliver,
            cancelled=cancelled,
            detokenizer=Detokenizer(self.tokenizer.backend_tokenizer, request),
            stream=stream,
            healing=Healing(self.spelling, request.seam) if request.seam else None,
            log_probs=log_probs,
        )
        if request.max_tokens < 1:
            deliver(TokenChunk(text="", tokens=0, finish_reason="length"))
        else:
            self._scheduler.submit(state)
        return state.close


def _device(device: str | None) -> str:
    wanted, known = (device or "cpu").upper(), openvino.Core().available_devices
    if wanted != "CPU" and wanted not in known:
        raise ValueError(
            f"device={device!r} is none of OpenVINO's here ({', '.join(known)}); leave device "
            "out for the CPU, or use backend='torch'"
        )
    return wanted


def precision_of(dtype: str, device: str) -> str:
    """Check a type to compute in, and return OpenVINO's name for it.

    Args:
        dtype: The type, or ``auto`` for OpenVINO's choice.
        device: OpenVINO's name of the device.

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
    """Return the properties with which OpenVINO runs a model.

    Args:
        device: OpenVINO's name of the device.
        precision: OpenVINO's name of the type it computes in.
        threads: Threads that compute, on a CPU.
    """
    properties: dict[str, object] = {"INFERENCE_PRECISION_HINT": precision}
    if device == "CPU":
        # Pinned threads of all OpenVINO models on a machine would share the same first cores.
        properties |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        if precision == "bf16":
            # OpenVINO's default, 8 bits, takes less room, but every step has to unpack them.
            properties["KV_CACHE_PRECISION"] = "bf16"
    return properties


def _open(source: OpenVINOSource, config: EngineConfig, device: str, precision: str) -> Any:
    """Load the weights of a model."""
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
