"""A stand-in for the package xllamacpp: its server's requests, answered by a small torch model.

It takes the same bodies and gives the same chunks, as seen of xllamacpp 2026.10.
"""

from __future__ import annotations

import re
import struct
import threading
import types
from functools import cached_property
from pathlib import Path

import torch

_LITERAL = re.compile(r'root ::= "(.*)" \[\^\\x00\]\*', re.DOTALL)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def write_gguf(path: Path, **values: str | int) -> Path:
    """Write the header of a GGUF file, without tensors."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values))
    for name, value in values.items():
        key = name.replace("__", ".").encode()
        data += struct.pack("<Q", len(key)) + key
        if isinstance(value, str):
            text = value.encode()
            data += struct.pack("<IQ", 8, len(text)) + text
        else:
            data += struct.pack("<II", 4, value)
    path.write_bytes(data)
    return path


class FakeServer:
    """Answers completion requests greedily."""

    def __init__(self, model, tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.bodies: list[dict] = []
        self.computed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def handle_completions(self, body, callback=None):
        self.bodies.append(body)
        bad = [token for token in body["prompt"] if token >= self.model.config.vocab_size]
        if bad:
            error = {"error": {"message": "Prompt contains invalid tokens"}}
            return callback(error) and None if callback else error
        probabilities, tokens = [], []
        shown = 0
        if (
            callback
            and body.get("return_progress")
            and callback({"prompt_progress": {}, "choices": []})
        ):
            return None
        for token, probability, text in self._tokens(body):
            assert self.gate.wait(60)
            tokens.append(token)
            self.computed.append(token)
            log_prob = float(torch.tensor(probability).log())
            said = self.tokenizer.decode([token])
            probabilities.append({"id": token, "token": said, "logprob": log_prob})
            whole = self.tokenizer.decode(tokens, skip_special_tokens=True)
            if callback is None or whole.endswith("\ufffd"):
                continue
            verbose = {"tokens": [token], "tokens_predicted": len(tokens)}
            choice = {"text": text if text is not None else whole[shown:], "finish_reason": None}
            shown = len(whole)
            if callback({"choices": [choice], "__verbose": verbose}):
                return None
        ended = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        last = {"text": "", "finish_reason": "stop" if ended else "length"}
        if callback is None:
            return {"choices": [{**last, "logprobs": {"content": probabilities}}]}
        callback({"choices": [last], "__verbose": {"tokens_predicted": len(tokens)}})
        return None

    @cached_property
    def pieces(self) -> list[str]:
        return [self.tokenizer.decode([t]) for t in range(len(self.tokenizer))]

    def _tokens(self, body):
        ids = list(body["prompt"])
        literal = _LITERAL.fullmatch(body.get("grammar", ""))
        rest = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), literal[1]) if literal else ""
        for _ in range(body["n_predict"]):
            with torch.no_grad():
                logits = self.model(torch.tensor([ids])).logits[0, -1].float().clone()
            probabilities = torch.softmax(logits, -1)
            for token, bias in body.get("logit_bias", ()):
                logits[token] += -torch.inf if bias is False else bias
            if rest:
                pieces = self.pieces
                fits = [p != "" and (p.startswith(rest) or rest.startswith(p)) for p in pieces]
                logits[: len(fits)][~torch.tensor(fits)] = -torch.inf
            token = int(logits.argmax())
            rest = rest[len(self.pieces[token]) :] if rest else ""
            ids.append(token)
            yield token, float(probabilities[token]), None
            if token == self.tokenizer.eos_token_id:
                return


def module_for(model, tokenizer) -> types.ModuleType:
    """Return a module to stand at the place of xllamacpp."""
    module = types.ModuleType("xllamacpp")
    made: list[FakeServer] = []

    def server(parameters) -> FakeServer:
        if "broken" in parameters.model.path:
            raise RuntimeError("Failed to init server, please check the input params.")
        made.append(FakeServer(model, tokenizer))
        made[-1].parameters = parameters
        return made[-1]

    def parameters():
        parts = ("model", "cpuparams", "cpuparams_batch")
        return types.SimpleNamespace(**{part: types.SimpleNamespace() for part in parts})

    module.Server, module.CommonParams, module.made = server, parameters, made
    module.get_device_info = lambda: [{"type": "CPU"}]
    module.ggml_type = types.SimpleNamespace(GGML_TYPE_F32=0)
    module.llama_flash_attn_type = types.SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_DISABLED=0)
    return module
