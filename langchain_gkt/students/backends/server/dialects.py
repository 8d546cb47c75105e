"""Requests and answers of servers, in token ids. One class for each kind of server."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.openvino.regex import ANY, literal

_ESCAPED = re.compile(r"[\x00-\x1f\x7f\"\\]")  # in a literal of llama.cpp's grammars
_BANNED = -100.0
_LIFTED = 500.0
"""More than any two logits differ by. Small enough that their differences keep their digits."""
_SEEDS = 2**32 - 1  # llama.cpp takes this number itself for a random seed


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One HTTP request: what to continue, and how its tokens are chosen."""

    ids: list[int]  # what the model reads
    max_tokens: int  # to write
    temperature: float = 0.0  # 0 for the likeliest tokens
    top_p: float = 1.0
    seed: int | None = None  # None sends none
    end_ids: Sequence[int] = ()  # they end an answer
    samples: int = 1  # how many answers
    stream: bool = False  # whether the tokens are wanted one by one
    first_apart: bool = False  # whether only the first one is wanted at once, of a stream
    log_probs: bool = False  # whether their log-probabilities are wanted
    allowed: Sequence[int] = ()  # the first token is one of these. Empty for any
    banned: Sequence[int] = ()  # tokens that are not chosen
    spells: str = ""  # what the answer's text begins with
    schema: dict[str, Any] | None = None  # of the whole answer. None for any text


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One event of an answer: new tokens."""

    ids: list[int]
    text: str = ""  # as the server decodes them
    log_probs: list[float] = field(default_factory=list)  # if they were asked for
    finish_reason: str | None = None  # ``stop`` or ``length`` at the end
    index: int = 0  # which of several answers it belongs to


Replies = Callable[[Ask], AsyncGenerator[Reply, None]]
"""Sends a request and yields its replies."""
Read = Callable[[Any], Iterator[Reply]]
"""Reads the events of one answer, in order."""


class Dialect(ABC):
    """How to talk to one kind of server. The defaults are those of vLLM and SGLang."""

    path: str
    """Path of completions, below the server's root."""
    most_allowed = 1024
    """Maximum number of tokens that an `Ask` may allow by name. vLLM's GPU runner has this one."""
    caches_blocks = False
    """Whether its prefix cache keeps only whole blocks, whose size its metrics report."""
    sends_first_apart = False
    """Whether a stream can send its first token at once, and all others together."""

    @abstractmethod
    def body(self, ask: Ask, model: str) -> dict[str, Any]:
        """Return the body of a request."""

    @abstractmethod
    def reader(self, ask: Ask) -> Read:
        """Return what reads the events of its answer."""

    def tokenize(self, text: str, model: str) -> dict[str, Any]:
        """Return the body that asks for a text's ids, without special tokens."""
        return {"model": model, "prompt": text, "add_special_tokens": False}

    def context(self, card: dict[str, Any]) -> int | None:
        """Return the context in tokens, from an entry of ``/v1/models``."""
        return card.get("max_model_len")


class VLLM(Dialect):
    """vLLM, by ``/v1/completions`` with ``return_token_ids``."""

    path, caches_blocks, sends_first_apart = "/v1/completions", True, True

    def body(self, ask: Ask, model: str) -> dict[str, Any]:
        """Return the body of a request."""
        body: dict[str, Any] = {
            "model": model,
            "prompt": ask.ids,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            # Else vLLM takes these from the model's generation_config.json.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": list(ask.end_ids),
            "skip_special_tokens": False,
            "return_token_ids": True,
            "stream": ask.stream,
            "n": ask.samples,
        }
        if ask.first_apart:
            body["stream_interval"] = ask.max_tokens
        if ask.seed is not None:
            body["seed"] = ask.seed
        if ask.log_probs:
            body["logprobs"] = 1
        if ask.allowed:
            body["allowed_token_ids"] = list(ask.allowed)
        if ask.banned:
            body["logit_bias"] = {str(token): _BANNED for token in ask.banned}
        if ask.spells:
            body["structured_outputs"] = {"regex": literal(ask.spells) + ANY}
        elif ask.schema is not None:
            body["structured_outputs"] = {"json": ask.schema}
        return body

    def reader(self, ask: Ask) -> Read:
        """Return what reads the events of its answer."""

        def read(event: Any) -> Iterator[Reply]:
            for choice in event.get("choices", ()):
                ids = choice.get("token_ids")
                if ids is None and choice.get("text"):
                    raise StudentError(
                        "the server gives no token ids back: it knows no return_token_ids",
                        hint="use vLLM 0.11 or newer, or remote_student without tokenizer=",
                    )
                yield Reply(
                    ids=list(ids or ()),
                    text=choice.get("text") or "",
                    log_probs=[*(choice.get("logprobs") or {}).get("token_logprobs", ())],
                    finish_reason=choice.get("finish_reason"),
                    index=choice.get("index", 0),
                )

        return read


class SGLang(Dialect):
    """SGLang, by its own ``/generate``, as its documentation describes it."""

    path = "/generate"

    def body(self, ask: Ask, model: str) -> dict[str, Any]:
        """Return the body of a request."""
        sampling: dict[str, Any] = {
            "max_new_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": list(ask.end_ids),
            "skip_special_tokens": False,
            "n": ask.samples,
        }
        if ask.seed is not None:
            sampling["sampling_seed"] = ask.seed
        if bias := _bias(ask):
            sampling["logit_bias"] = {str(token): amount for token, amount in bias}
        if ask.spells:
            sampling["regex"] = literal(ask.spells) + ANY
        elif ask.schema is not None:
            sampling["json_schema"] = json.dumps(ask.schema)
        return {
            "input_ids": ask.ids,
            "sampling_params": sampling,
            "stream": ask.stream,
            "return_logprob": ask.log_probs,
        }

    def reader(self, ask: Ask) -> Read:
        """Return what reads the events of its answer."""
        seen: dict[int, int] = {}

        def read(event: Any) -> Iterator[Reply]:
            for position, part in enumerate(event if isinstance(event, list) else [event]):
                about = part["meta_info"]
                index = part.get("index", position)
                # A stream repeats all ids in each event, unless the server has another setting.
                new = about["completion_tokens"] - seen.get(index, 0)
                seen[index] = about["completion_tokens"]
                log_probs = [pair[0] for pair in about.get("output_token_logprobs") or ()]
                reason = about.get("finish_reason")
                yield Reply(
                    ids=part["output_ids"][-new:] if new > 0 else [],
                    text=part.get("text") or "",
                    log_probs=log_probs[-new:] if new > 0 else [],
                    finish_reason=reason["type"] if reason else None,
                    index=index,
                )

        return read


class LlamaServer(Dialect):
    """llama-server, by its own ``/completion`` with ``return_tokens``."""

    path, most_allowed = "/completion", 2**31

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        """Take what tokenises a text of the answer."""
        self._encode = encode

    def body(self, ask: Ask, model: str) -> dict[str, Any]:
        """Return the body of a request."""
        body: dict[str, Any] = {
            "model": model,
            "prompt": ask.ids,
            "n_predict": ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "samplers": ["temperature", "top_p"],
            "cache_prompt": True,
            "return_tokens": True,
            "stream": ask.stream,
        }
        if ask.temperature == 0:
            body |= {"top_k": 1, "samplers": ["top_k"]}
        if ask.samples > 1:
            body["n"] = ask.samples
        if ask.seed is not None:
            body["seed"] = ask.seed % _SEEDS
        if ask.log_probs:
            body["n_probs"] = 1
        if bias := _bias(ask):
            body["logit_bias"] = bias
        if ask.spells:
            escaped = _ESCAPED.sub(lambda match: f"\\x{ord(match[0]):02x}", ask.spells)
            body["grammar"] = f'root ::= "{escaped}" [^\\x00]*'
        elif ask.schema is not None:
            body["json_schema"] = ask.schema
        return body

    def reader(self, ask: Ask) -> Read:
        """Return what reads the events of its answer."""
        seen: dict[int, int] = {}

        def read(event: Any) -> Iterator[Reply]:
            for part in event if isinstance(event, list) else [event]:
                ids, index = list(part.get("tokens") or ()), part.get("index", 0)
                text, count = part.get("content") or "", part.get("tokens_predicted", 0)
                missing = count - seen.get(index, 0) - len(ids)
                if ask.stream and text and missing > 0:
                    # A stream leaves out the tokens that only begin a character.
                    ids = self._encode(text)
                seen[index] = count
                tokens = part.get("completion_probabilities") or ()
                reason = "length" if part.get("stop_type") == "limit" else "stop"
                yield Reply(
                    ids=ids,
                    text=text,
                    log_probs=[token["logprob"] for token in tokens],
                    finish_reason=reason if part.get("stop") else None,
                    index=index,
                )

        return read

    def tokenize(self, text: str, model: str) -> dict[str, Any]:
        """Return the body that asks for a text's ids."""
        return {"content": text, "add_special": False, "parse_special": False}

    def context(self, card: dict[str, Any]) -> int | None:
        """Return the tokens of one slot's context."""
        return (card.get("meta") or {}).get("n_ctx")


def _bias(ask: Ask) -> list[list[Any]]:
    lifted = [[token, _LIFTED] for token in ask.allowed]
    return lifted + [[token, _BANNED] for token in ask.banned]


def dialect_of(name: str, encode: Callable[[str], list[int]]) -> Dialect:
    """Return the dialect of a student's ``backend``. ``encode`` tokenises a text of the answer."""
    if name == "llama-server":
        return LlamaServer(encode)
    return VLLM() if name == "vllm" else SGLang()
