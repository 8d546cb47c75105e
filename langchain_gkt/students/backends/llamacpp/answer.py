"""One answer of llama.cpp: its request, and its chunks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.texts.stop_strings import StopStringFilter

_ESCAPED = re.compile(r"[\x00-\x1f\x7f\"\\\\]")
_MAX_SEED = 2**32 - 1  # this value itself means a random seed


def completion_request(request: Request, marks: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return the body of llama.cpp's request for an answer, in token ids.

    Args:
        request: What to continue, and how.
        marks: Ids and texts of the added tokens. No text is spelled again with them.
    """
    body: dict[str, Any] = {
        "prompt": [*request.prompt, *request.kept],
        "n_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "samplers": ["temperature", "top_p"],
        "stream": True,
        "verbose": True,  # each chunk then says how many tokens there are
        "return_progress": True,  # a prompt can be cancelled between two parts of it
        "cache_prompt": True,
    }
    if request.temperature == 0:
        body |= {"top_k": 1, "samplers": ["top_k"]}  # no probabilities of a whole vocabulary
    if request.seed is not None:
        body["seed"] = request.seed % _MAX_SEED
    if request.keep_special:
        body["preserved_tokens"] = [text for _, text in marks]
    if request.seam is not None and request.constraint is None:
        text = request.seam.spelled.decode()
        body["grammar"] = f"root ::= {_literal(text)} [^\\x00]*"
        body["logit_bias"] = [
            [token, False]
            for token, mark in marks
            if mark.startswith(text) or text.startswith(mark)
        ]
        body["n_predict"] += request.seam.opened  # as long as the other engines write
    return body


def _literal(text: str) -> str:
    """Write a text as a literal of a llama.cpp grammar."""
    return '"' + _ESCAPED.sub(lambda match: f"\\x{ord(match[0]):02x}", text) + '"'


class AnswerText:
    """Turns llama.cpp's chunks into ours. It hides the seam, and ends at a stop string."""

    def __init__(self, request: Request, *, stream: bool) -> None:
        """Start before the first chunk. Without ``stream`` all text comes at the end."""
        self._request, self._stream = request, stream
        self._unseen = len(request.seam.spelled.decode()) if request.seam else 0
        self._repeated = self._tokens = 0
        self._stop = StopStringFilter(request.stop)
        self._texts: list[str] = []

    def read(self, chunk: dict[str, Any]) -> TokenChunk | None:
        """Take a chunk of llama.cpp's completion stream.

        Returns:
            Text that is certain. With a finish reason the answer is over, and the caller stops
            llama.cpp. None if there is nothing to show.
        """
        if "prompt_progress" in chunk:
            return None
        choice = chunk["choices"][0]
        count = chunk.get("__verbose", {}).get("tokens_predicted", self._tokens)
        self._tokens = max(self._tokens, count)
        new = choice["text"]
        hidden = min(self._unseen, len(new))
        self._unseen -= hidden
        if hidden and hidden == len(new):
            self._repeated = self._tokens
        text, stopped = self._stop.feed(new[hidden:])
        if stopped:
            return self._last(text, "stop")
        reason = choice["finish_reason"]
        if reason is not None:
            return self._last(text + self._stop.flush(), reason)
        if self._tokens - self._repeated >= self._request.max_tokens:
            return self._last(text + self._stop.flush(), "length")
        if text and self._stream:
            return TokenChunk(text=text, tokens=self._tokens - self._repeated)
        self._texts.append(text)
        return None

    def _last(self, text: str, reason: str) -> TokenChunk:
        tokens = self._tokens - self._repeated
        whole = "".join([*self._texts, text])
        return TokenChunk(text=whole, tokens=tokens, finish_reason=reason)
