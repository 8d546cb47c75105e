"""Cuts a recorded reply after any number of its tokens."""

from __future__ import annotations

import codecs
import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.utils import count_tokens_approximately

from langchain_gkt.errors import ConfigurationError, MissingPackageError

TokenSplitter = Callable[[str], Sequence[str | bytes]]
"""Splits a text into the teacher's tokens. Joined they are the text."""

CUT_METHODS = {
    "logprobs": "exact: the provider reported the tokens it wrote (logprobs)",
    "tokenizer": "the teacher's tokenizer, over the whole text: exact if the model wrote the "
    "tokens into which its tokenizer splits the text",
    "approximate": "approximate: in proportion to the characters, because neither the provider "
    "nor a tokenizer gave the teacher's tokens",
    "guessed": "guessed at four characters a token, because the teacher reported neither its "
    "tokens nor how many there were; give teacher_tokenizer=",
}
"""How the tokens of a recorded reply were found, in words."""

_ENCODINGS = set("gpt2 r50k_base p50k_base p50k_edit cl100k_base o200k_base o200k_harmony".split())
"""Names of tiktoken's encodings."""


class CutReply:
    """A reply that can be cut after any number of tokens.

    Attributes:
        text: Its text.
        method: How its tokens were found: a key of `CUT_METHODS`.
        tokens: Its completion tokens.
        reasoning: How many of them are hidden reasoning, which comes first.
    """

    def __init__(
        self,
        text: str,
        *,
        usage: Mapping[str, Any] | None = None,
        pieces: Sequence[bytes] = (),
        splitter: TokenSplitter | None = None,
    ) -> None:
        """Find the tokens' ends.

        Args:
            text: The reply's text.
            usage: Its usage metadata, if any was reported.
            pieces: Its tokens, if the provider reports them. A token may be part of a character.
            splitter: Finds the tokens if ``pieces`` are not the text.
        """
        self.text = text
        written = text.encode()
        usage = usage or {}
        self.reasoning: int = (usage.get("output_token_details") or {}).get("reasoning") or 0
        reported = usage.get("output_tokens") or 0
        # Foreign bytes, such as after a removed space, say nothing about the text.
        self.method, self.pieces = "logprobs", list(pieces)
        if b"".join(self.pieces) != written or not pieces:
            split = splitter(text) if splitter else ()
            self.method = "tokenizer"
            self.pieces = [piece if isinstance(piece, bytes) else piece.encode() for piece in split]
        if b"".join(self.pieces) != written or not self.pieces:
            self.method, self.pieces = "approximate" if reported else "guessed", []
        # Providers differ in whether they count the token that ends the answer.
        # If neither reports them, four characters count as one token, as in the chain.
        count = len(self.pieces) or count_tokens_approximately([text], extra_tokens_per_message=0)
        self.tokens: int = reported or count + 1

    def cut(self, limit: int) -> tuple[str, int, bool]:
        """Cut the reply where a limit would have made the provider stop.

        Returns:
            The text, its completion tokens, and whether it is the whole reply.
        """
        if limit >= self.tokens:
            return self.text, self.tokens, True
        visible = max(0, limit - self.reasoning)
        if self.pieces:
            text = b"".join(self.pieces[:visible]).decode(errors="ignore")
        else:
            text = self.text[: len(self.text) * visible // self._most_visible]
        return text, limit, False

    def tokens_in(self, size: int) -> int:
        """Count the tokens in the reply's first ``size`` characters.

        Hidden ones are included, and one that only begins there counts.
        """
        if not self.pieces:
            written = -(-self._most_visible * size // max(1, len(self.text)))
            return min(self.tokens, self.reasoning + written)
        ends = itertools.accumulate(map(len, self.pieces))
        begun = len(self.text[:size].encode())
        return self.reasoning + (sum(end < begun for end in ends) + 1 if begun else 0)

    def behind(self, size: int) -> CutReply:
        """Return the rest of the reply after its first ``size`` characters.

        A remaining part of a token counts as one.
        """
        rest = copy.copy(self)
        rest.text, rest.reasoning, rest.pieces = self.text[size:], 0, []
        left = len(self.text[:size].encode())
        for piece in self.pieces:
            if left < len(piece) or not left:  # tokens that share a character may be empty
                rest.pieces.append(piece[left:])
            left = max(0, left - len(piece))
        if self.pieces:
            gone = self.reasoning + len(self.pieces) - len(rest.pieces)
        else:
            gone = self.tokens_in(size)
        rest.tokens = max(1, self.tokens - gone)
        return rest

    def streamed(self, text: str) -> Iterator[str]:
        """Yield the tokens of the reply's beginning, or its words if the tokens are unknown."""
        if not self.pieces:
            yield from re.findall(r"\s*\S+|\s+", text)
            return
        decoder, left = codecs.getincrementaldecoder("utf-8")("ignore"), len(text)
        for piece in self.pieces:
            if new := decoder.decode(piece)[:left]:
                left -= len(new)
                yield new

    @property
    def _most_visible(self) -> int:
        return max(1, self.tokens - self.reasoning)


def logprob_pieces(message: AIMessage) -> list[str] | None:
    """Return the bytes of each token in hexadecimal, from OpenAI's ``logprobs``, or None."""
    logprobs = message.response_metadata.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not content:
        return None
    return [
        (bytes(token["bytes"]) if token.get("bytes") is not None else token["token"].encode()).hex()
        for token in content
    ]


def token_splitter(tokenizer: Any) -> Callable[[str], list[str]]:
    """Make a function that splits texts with a fast tokenizer of transformers.

    If tokens share one character, the last one is that character and the others are empty. A text
    that the tokenizer does not restore unchanged gives no tokens.
    """

    def split(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # Not by offsets, because many tokenizers leave a word's leading space out of them.
        prefixes = [""]
        for size in range(1, len(ids) + 1):
            seen = tokenizer.decode(ids[:size], clean_up_tokenization_spaces=False)
            prefixes.append(seen.rstrip("\ufffd"))  # half a character
        if prefixes[-1] != text or not all(map(text.startswith, prefixes)):
            return []
        return [after[len(before) :] for before, after in itertools.pairwise(prefixes)]

    return split


@dataclass(frozen=True)
class NamedTokenizer:
    """A tokenizer that splits texts and counts their tokens."""

    split: TokenSplitter
    count: Callable[[str], int]


@lru_cache(maxsize=16)
def load_tokenizer(name: str) -> NamedTokenizer:
    """Load one of tiktoken's encodings, or the Hugging Face tokenizer of a folder or repo id.

    Raises:
        ConfigurationError: If there is no such tokenizer, or it cannot be read.
    """
    try:
        return _tiktoken(name) if name in _ENCODINGS else _hugging_face(name)
    except ImportError as error:
        raise MissingPackageError(
            f"tokenizer={name!r} needs the package {error.name}", hint=f"pip install {error.name}"
        ) from error
    except Exception as error:
        raise ConfigurationError(
            f"tokenizer={name!r} cannot be loaded ({type(error).__name__}: {error})",
            hint="give an encoding of tiktoken, such as 'o200k_base' (without a network, "
            "TIKTOKEN_CACHE_DIR names the folder with its file), or the folder or repo id of a "
            "Hugging Face tokenizer",
        ) from error


def _tiktoken(name: str) -> NamedTokenizer:
    import tiktoken

    encoding = tiktoken.get_encoding(name)

    def split(text: str) -> Sequence[str | bytes]:
        return encoding.decode_tokens_bytes(encoding.encode_ordinary(text))

    return NamedTokenizer(split, lambda text: len(encoding.encode_ordinary(text)))


def _hugging_face(name: str) -> NamedTokenizer:
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(name)
    return NamedTokenizer(
        token_splitter(loaded),
        lambda text: len(loaded(text, add_special_tokens=False)["input_ids"]),
    )
