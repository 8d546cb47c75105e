"""The text of one answer: token ids become text, which ends at the first stop string."""

from __future__ import annotations

from typing import Any

from tokenizers.decoders import DecodeStream

from langchain_gkt.students.engine.requests.request import Request
from langchain_gkt.texts.stop_strings import StopStringFilter

_REPLACEMENT = "\ufffd"
"""What a tokenizer shows in place of an incomplete character."""


class Detokenizer:
    """Turns the tokens of one answer into text, as soon as the text is certain."""

    def __init__(self, backend_tokenizer: Any, request: Request) -> None:
        """Prepare for a request's answer, with a tokenizer of the ``tokenizers`` library."""
        self._tokenizer, self._prefix = backend_tokenizer, request.kept
        self._shown = request.seam.shown if request.seam else 0
        self._skip_special = not request.keep_special
        self._stream: DecodeStream | None = None
        self._pending: list[int] = []
        self._stop = StopStringFilter(request.stop)

    def add(self, token: int) -> tuple[str, bool]:
        """Add a token. Return text that is certain now, and whether a stop string was reached."""
        if self._stream is None:
            self._stream = self._open_stream()
        text = self._stream.step(self._tokenizer, token) or ""
        self._pending = [] if text else [*self._pending, token]
        return self._stop.feed(self._unseen(text))

    def flush(self) -> str:
        """Return the text held back as part of a stop string or of a character."""
        if not self._pending:
            return self._stop.flush()
        tail = self._tokenizer.decode(self._pending, skip_special_tokens=self._skip_special)
        text, stopped = self._stop.feed(self._unseen(tail.rstrip(_REPLACEMENT)))
        return text if stopped else text + self._stop.flush()

    def _unseen(self, text: str) -> str:
        """Drop what was shown before: the end of the answer prefix, spelled again."""
        seen = min(self._shown, len(text))
        self._shown -= seen
        return text[seen:]

    def _open_stream(self) -> DecodeStream:
        # The answer prefix comes first in the stream. A tokenizer that writes its spaces in front
        # of words then knows whether the next word needs one.
        ids = list(self._prefix)
        if self._tokenizer.decode(ids, skip_special_tokens=self._skip_special).endswith(
            _REPLACEMENT
        ):
            ids = []  # the stream would wait for the rest of the character, and repeat the text
        return DecodeStream(ids=ids, skip_special_tokens=self._skip_special)
