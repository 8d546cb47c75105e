"""A stand-in for openvino_genai: its continuous batching, computed by a small torch model.

It gives one token a step, as seen of openvino-genai 2026.4.
"""

from __future__ import annotations

import json
import math
import threading
import types
from enum import Enum
from pathlib import Path

import regex
import torch


class Status(Enum):
    RUNNING, FINISHED, IGNORED, CANCEL = range(4)


def write_folder(path: Path, model, tokenizer) -> Path:
    """Write what an exported folder holds, with empty weights."""
    tokenizer.save_pretrained(path)
    config = {**model.config.to_dict(), "dtype": None}
    (path / "config.json").write_text(json.dumps(config, default=str))
    for name in ("openvino_model", "openvino_tokenizer", "openvino_detokenizer"):
        (path / f"{name}.xml").write_text("<net/>")
    (path / "openvino_model.bin").write_bytes(b"weights")
    return path


class Handle:
    def __init__(self, ids, config, pieces, end: int) -> None:
        self.ids, self.config, self.written, self.ready = ids, config, [], []
        self.status, self._pieces, self._end = Status.RUNNING, pieces, end
        self._pattern = None
        if config.structured_output_config is not None:
            self._pattern = regex.compile(config.structured_output_config.regex)

    def can_read(self) -> bool:
        return bool(self.ready)

    def read(self):
        token, log_prob = self.ready.pop(0)
        log_probs = [log_prob if self.config.logprobs else 0.0]
        return {0: types.SimpleNamespace(generated_ids=[token], generated_log_probs=log_probs)}

    def get_status(self) -> Status:
        return self.status

    def cancel(self) -> None:
        self.status = Status.CANCEL

    def fits(self, token: int) -> bool:
        text = "".join(self._pieces[t] for t in self.written)
        if token == self._end:
            return self._pattern.fullmatch(text) is not None
        piece = self._pieces[token]
        return piece != "" and self._pattern.fullmatch(text + piece, partial=True) is not None

    def take(self, logits) -> None:
        log_probs = logits.log_softmax(-1)
        if self._pattern is None:
            token = int(logits.argmax())
        else:
            best = logits.argsort(descending=True).tolist()
            token = next(t for t in best if t < len(self._pieces) and self.fits(t))
        self.written.append(token)
        self.ready.append((token, float(log_probs[token])))
        if token in self.config.stop_token_ids or len(self.written) >= self.config.max_new_tokens:
            self.status = Status.FINISHED


class FakePipeline:
    """Answers requests greedily."""

    def __init__(self, model, tokenizer) -> None:
        self.model, self.end = model, tokenizer.eos_token_id
        special = set(tokenizer.all_special_ids)
        self.pieces = ["" if t in special else tokenizer.decode([t]) for t in range(len(tokenizer))]
        self.handles: list[Handle] = []
        self.patterns: list[str | None] = []
        self.added: list[int] = []  # after how many steps
        self.gate = threading.Event()
        self.gate.set()
        self.steps, self.broken = 0, False
        self.prefill_steps = 0  # that give no token yet

    def add_request(self, number, tensor, config) -> Handle:
        asked = config.structured_output_config
        self.patterns.append(asked and asked.regex)
        self.added.append(self.steps)
        self.handles.append(Handle(tensor[0].tolist(), config, self.pieces, self.end))
        self.handles[-1].prefill_steps = self.prefill_steps
        return self.handles[-1]

    def has_non_finished_requests(self) -> bool:
        return bool(self.handles)

    def step(self) -> None:
        assert self.gate.wait(60)
        self.steps += 1
        if self.broken:
            raise RuntimeError("out of memory")
        for handle in [h for h in self.handles if h.status is Status.RUNNING]:
            if handle.prefill_steps:
                handle.prefill_steps -= 1
                continue
            with torch.no_grad():
                ids = torch.tensor([[*handle.ids, *handle.written]])
                handle.take(self.model(ids).logits[0, -1].float())
        self.handles = [h for h in self.handles if h.status is Status.RUNNING]


def modules_for(model, tokenizer) -> dict[str, types.ModuleType]:
    """Return modules to stand at the place of openvino and openvino_genai."""
    device_properties = {
        "OPTIMIZATION_CAPABILITIES": ["FP32", "INT8", "BIN"],
        "INFERENCE_PRECISION_HINT": types.SimpleNamespace(get_type_name=lambda: "f32"),
    }
    runtime, genai = types.ModuleType("openvino"), types.ModuleType("openvino_genai")
    made: list[FakePipeline] = []

    def pipeline(path, settings, device, properties) -> FakePipeline:
        if "broken" in path:
            raise RuntimeError("Unable to read the model")
        made.append(FakePipeline(model, tokenizer))
        made[-1].settings, made[-1].properties = settings, properties
        return made[-1]

    def config() -> types.SimpleNamespace:
        return types.SimpleNamespace(
            max_new_tokens=math.inf, stop_token_ids=set(), logprobs=0, structured_output_config=None
        )

    runtime.Tensor = lambda array: array
    runtime.Core = lambda: types.SimpleNamespace(
        available_devices=["CPU"], get_property=lambda device, name: device_properties[name]
    )
    genai.ContinuousBatchingPipeline, genai.made = pipeline, made
    genai.SchedulerConfig = types.SimpleNamespace
    genai.GenerationConfig, genai.GenerationStatus = config, Status
    genai.StructuredOutputConfig = lambda regex: types.SimpleNamespace(regex=regex)
    return {"openvino": runtime, "openvino_genai": genai}
