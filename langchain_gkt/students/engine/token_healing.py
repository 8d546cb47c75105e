r"""Token healing: continue a text as if the student had written its end with its own tokens.

A text that somebody else began ends wherever it was cut. Its last token is often one that the
student would not have written there: ":" where it knows ":\n", "hel" where it knows "hello". So the
prompt leaves out the last token. The first new tokens must spell it, and the whitespace after it,
again. They may continue from there. (The idea is that of the Guidance project:
github.com/guidance-ai/guidance.)
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_LAST = b"\xff"
# A longer end is mostly whitespace. Spelling it again would cost more than the seam is worth.
_MAX_SPELLED = 200


@dataclass(frozen=True)
class Seam:
    """Where a begun text ends and the student continues."""

    kept: list[int]  # ids of the begun text without its end
    spelled: bytes  # the end, which the first new tokens spell
    opened: int  # how many ids the end had
    shown: int  # characters that the tokenizer decodes the end to. They are not shown again


class TokenSpelling:
    """The bytes that every token of a vocabulary stands for."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        """Read the vocabulary of a fast tokenizer, up to the ``size`` of the model's logits.

        Takes up to a second for 260,000 tokens.
        """
        self._backend = tokenizer.backend_tokenizer
        self._bytes = _spelling(tokenizer, size)
        # Text never uses "<tool_call>" and the like, which are more than text.
        self._marks = {t for t in tokenizer.added_tokens_decoder if self.of(t).strip()}
        self._by_bytes: dict[bytes, list[int]] = defaultdict(list)
        for token, data in enumerate(self._bytes):
            if data and token not in self._marks:
                self._by_bytes[data].append(token)
        self._sorted = sorted(self._by_bytes)

    @property
    def is_known(self) -> bool:
        """Whether the tokenizer is of a kind whose tokens' bytes are known."""
        return bool(self._sorted)

    def of(self, token: int) -> bytes:
        """Return the bytes of a token. Control tokens and unknown ids have none."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def seam(self, ids: Sequence[int]) -> Seam | None:
        """Find where a begun text, with the whitespace at its end, has to be reopened.

        Returns:
            The text without its last token of more than whitespace, and without what follows. That
            token stays if no token of the vocabulary joins it to the whitespace. None if the text
            has to stay as it is.
        """
        at, is_space = len(ids), True
        while at and self._opens(ids[at - 1]) and (is_space or self._splits_character(ids[:at])):
            at -= 1
            is_space = not self.of(ids[at]).strip()
        if at < len(ids) - 1 and not is_space and self._stands_alone(ids[at:]):
            at += 1
        spelled = b"".join(map(self.of, ids[at:]))
        if not 0 < len(spelled) <= _MAX_SPELLED:
            return None
        if self._splits_character(ids[:at]) or not is_text(spelled):
            return None  # bytes that are no character cannot be shown again
        kept, text = self._backend.decode(list(ids[:at])), self._backend.decode(list(ids))
        if not text.startswith(kept):
            return None
        return Seam(list(ids[:at]), spelled, len(ids) - at, len(text) - len(kept))

    def _stands_alone(self, ids: Sequence[int]) -> bool:
        """Whether no token spans the end of the first one and the beginning of the others."""
        word, rest = self.of(ids[0]), b"".join(map(self.of, ids[1:]))
        if not is_text(word):
            return False
        for start in range(len(word)):
            joined = word[start:] + rest[:1]
            at = bisect_left(self._sorted, joined)
            if at < len(self._sorted) and self._sorted[at].startswith(joined):
                return False
        return True

    def _opens(self, token: int) -> bool:
        return bool(self.of(token)) and token not in self._marks

    def _splits_character(self, ids: Sequence[int]) -> bool:
        tail = b"".join(map(self.of, ids[-4:]))
        return bool(tail) and not any(is_text(tail[-size:]) for size in range(1, 5))

    def candidates(self, spelled: bytes) -> list[int]:
        """Return the tokens that begin to spell some bytes.

        They begin with all of them, or are a prefix of them whose rest can be spelled exactly,
        because a grammar may allow nothing after it.
        """
        can_spell = [False] * len(spelled) + [True]
        for start in range(len(spelled) - 1, -1, -1):
            rest = spelled[start:]
            can_spell[start] = any(
                can_spell[start + size] and rest[:size] in self._by_bytes
                for size in range(1, len(rest) + 1)
            )
        shorter = (spelled[:size] for size in range(1, len(spelled)) if can_spell[size])
        start = bisect_left(self._sorted, spelled)
        end = bisect_left(self._sorted, spelled + _LAST * 8, lo=start)
        words = [*shorter, *self._sorted[start:end]]
        return [token for word in words for token in self._by_bytes.get(word, ())]


class Healing:
    """Constrains the first tokens of one answer to the ``rest`` of the begun text's end."""

    def __init__(self, spelling: TokenSpelling, seam: Seam) -> None:
        """Start before the first token."""
        self._spelling, self.rest = spelling, seam.spelled

    def hold(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (vocabulary,), that allow only tokens that spell the end."""
        if not self.rest:
            return logits
        import torch  # engines without it hold no logits

        allowed = torch.tensor(self._spelling.candidates(self.rest), device=logits.device)
        held = torch.full_like(logits, -torch.inf)
        held[allowed] = logits[allowed]
        return held

    def take(self, token: int) -> bool:
        """Advance by one token. Return whether it only spells what was there before."""
        if not self.rest:
            return False
        size, left = len(self._spelling.of(token)), len(self.rest)
        self.rest = self.rest[size:]
        return size <= left


def _spelling(tokenizer: Any, size: int) -> list[bytes]:
    """Return the bytes of every token. Empty for control tokens and for kinds we do not know."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelled = [b""] * size
    decoder = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder"))
    known_bytes: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
    byte_of = {character: byte for byte, character in known_bytes.items()}
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    if "ByteLevel" not in decoder and "\\u2581" not in decoder:
        return spelled
    for word, token in tokenizer.get_vocab().items():
        if token >= size or (word in added and added[word].special):
            continue
        if word in added:
            spelled[token] = word.encode()
        elif "ByteLevel" in decoder:
            known = all(character in byte_of for character in word)
            spelled[token] = bytes(byte_of[c] for c in word) if known else b""
        elif byte := _BYTE_TOKEN.fullmatch(word):
            spelled[token] = bytes([int(byte[1], 16)])
        else:
            spelled[token] = word.replace("\u2581", " ").encode()
    return spelled


def is_text(data: bytes) -> bool:
    """Whether bytes are whole characters."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
