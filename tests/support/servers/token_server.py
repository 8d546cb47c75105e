"""A stand-in for vLLM, SGLang and llama-server: token ids in and out, from a small torch model.

It takes the bodies and gives the events that those servers document, over a transport of httpx in
place of the network.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import torch

ADDRESS = "http://student.test/v1"


@dataclass
class TokenServer:
    """Answers as one kind of server.

    ``faults`` are taken one for each completion request: an exception to raise, a response to give,
    or a number of events after which the connection breaks. ``dropped`` counts streams that were
    closed before their end. ``gate`` holds tokens back. ``prefers`` is the token that the model
    begins its first answer with, if it may.
    """

    model: Any
    tokenizer: Any
    kind: str = "vllm"
    key: str | None = None
    name: str = "tiny"
    context: int = 512
    masks: bool = True
    matches: bool = True
    tells_ids: bool = True
    knows_intervals: bool = True
    splits: Any = None
    bodies: list[dict] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    faults: deque[Any] = field(default_factory=deque)
    dropped: int = 0
    is_up: bool = True
    gate: asyncio.Event | None = None
    prefers: int | None = None
    metrics: str | None = None

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def asked(self) -> list[dict]:
        """Return the requests behind those that check the server."""
        return self.bodies[4:]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if not self.is_up:
            raise httpx.ConnectError("All connection attempts failed")
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return httpx.Response(401, json={"error": "Unauthorized"})
        path, body = request.url.path, json.loads(request.content or "{}")
        if path == "/v1/models":
            card = {"id": self.name, "max_model_len": self.context, "meta": {"n_ctx": self.context}}
            return httpx.Response(200, json={"object": "list", "data": [card]})
        if path == "/metrics" and self.metrics is not None:
            return httpx.Response(200, text=self.metrics)
        if path == "/tokenize":
            ids = self.tokenizer(body.get("prompt", body.get("content")), add_special_tokens=False)
            tokens = self.splits or ids["input_ids"]
            return httpx.Response(200, json={"tokens": tokens})
        if path != {"vllm": "/v1/completions", "sglang": "/generate"}.get(self.kind, "/completion"):
            return httpx.Response(404, json={"detail": "Not Found"})
        self.bodies.append(body)
        self.sessions.append(request.headers.get("X-Session-ID", ""))
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, httpx.Response):
            return fault
        if body["stream"]:
            return httpx.Response(200, stream=_Stream(self._stream(body, fault)))
        if self.gate is not None:
            await self.gate.wait()
        return httpx.Response(200, json=self._whole(body))

    async def _stream(self, body: dict, breaks_after: int | None) -> AsyncIterator[bytes]:
        finished = False
        try:
            for position, event in enumerate(self._events(body)):
                if position == breaks_after:
                    raise httpx.RemoteProtocolError("peer closed connection")
                if self.gate is not None:
                    await self.gate.wait()
                await asyncio.sleep(0)
                yield f"data: {json.dumps(event)}\n\n".encode()
            yield b"data: [DONE]\n\n"
            finished = True
        finally:
            self.dropped += not finished

    def _events(self, body: dict) -> Iterator[dict]:
        interval = (self.knows_intervals and body.get("stream_interval")) or 1
        shown: list[int] = []
        new: list[tuple[int, float]] = []
        for token, log_prob, reason in self._tokens(body):
            new.append((token, log_prob))
            if reason or not shown or len(new) >= interval:
                tokens, log_probs = zip(*new, strict=True)
                shown += tokens
                new.clear()
                yield self._event([*tokens], [*log_probs], reason, shown)

    def _whole(self, body: dict) -> Any:
        count = body.get("n") or body.get("sampling_params", {}).get("n") or 1
        found = []
        for index in range(count):
            tokens, log_probs, reasons = zip(*self._tokens(body), strict=True)
            found.append(self._event([*tokens], [*log_probs], reasons[-1], [*tokens], index))
        if self.kind == "vllm":
            return {"choices": [choice for event in found for choice in event["choices"]]}
        return found if count > 1 else found[0]

    def _event(
        self,
        new: list[int],
        log_probs: list[float],
        reason: str | None,
        shown: list[int],
        index: int = 0,
    ) -> dict:
        ends = {self.tokenizer.eos_token_id}
        text = self.tokenizer.decode([token for token in new if token not in ends])
        if self.kind == "vllm":
            choice = {"index": index, "text": text, "finish_reason": reason}
            choice["logprobs"] = {"token_logprobs": log_probs}
            if self.tells_ids:
                choice["token_ids"] = new
            return {"choices": [choice]}
        if self.kind == "sglang":
            about = {
                "completion_tokens": len(shown),
                "finish_reason": reason and {"type": reason},
                "output_token_logprobs": [[one, 0, None] for one in log_probs],
            }
            return {"text": text, "output_ids": [*shown], "meta_info": about, "index": index}
        event = {"content": text, "tokens": new, "tokens_predicted": len(shown), "index": index}
        event["completion_probabilities"] = [{"logprob": one} for one in log_probs]
        if reason:
            event |= {"stop": True, "stop_type": "eos" if reason == "stop" else "limit"}
        return event

    @cached_property
    def words(self) -> list[str]:
        return [self.tokenizer.decode([token]) for token in range(len(self.tokenizer))]

    def _tokens(self, body: dict) -> Iterator[tuple[int, float, str | None]]:
        sampling = body.get("sampling_params", body)
        ids = list(body.get("prompt", body.get("input_ids")))
        limit = next(
            sampling[n] for n in ("max_tokens", "max_new_tokens", "n_predict") if n in sampling
        )
        regex = sampling.get("regex") or (body.get("structured_outputs") or {}).get("regex", "")
        rest = regex.removesuffix(r"[\s\S]*").replace("\\", "")
        if grammar := body.get("grammar"):
            escaped = grammar.split('"')[1]
            rest = re.sub(r"\\x(..)", lambda one: chr(int(one[1], 16)), escaped)
        rest = rest if self.matches else ""
        bias = sampling.get("logit_bias") or {}
        pairs = bias.items() if isinstance(bias, dict) else bias
        allowed = body.get("allowed_token_ids")
        for position in range(limit):
            with torch.no_grad():
                logits = self.model(torch.tensor([ids])).logits[0, -1].float()
            log_probs, logits = torch.log_softmax(logits, -1), logits.clone()
            if self.prefers is not None and not position and len(self.asked()) == 1:
                logits[self.prefers] = logits.max() + 1
            if self.masks:
                for token, amount in pairs:
                    logits[int(token)] += amount
                if allowed:
                    kept = logits[allowed]
                    logits[:] = -torch.inf
                    logits[allowed] = kept
            if rest:
                fits = [bool(w) and (w.startswith(rest) or rest.startswith(w)) for w in self.words]
                logits[: len(fits)][~torch.tensor(fits)] = -torch.inf
            token = int(logits.argmax())
            rest = rest[len(self.tokenizer.decode([token])) :] if rest else ""
            ids.append(token)
            ended = token == self.tokenizer.eos_token_id
            reason = "stop" if ended else "length" if position == limit - 1 else None
            yield token, float(log_probs[token]), reason
            if ended:
                return


class _Stream(httpx.AsyncByteStream):
    """Bytes whose sender learns at once that nobody reads them any more."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def aclose(self) -> None:
        await self._parts.aclose()
