"""Keeps text that looks like control tokens text, for any tokenizer and chat template.

Chat models mark turns, tool calls and reasoning with *added tokens*. A tokenizer finds their text
everywhere. In a prompt only the chat template may write them. So a prompt is made in two steps.
First, unused characters cover what users typed, and the template reads that. Then the template's
own tokens get names that nobody can type. A tokenizer that knows the tokens only by these names
makes the ids.
"""

from __future__ import annotations

import difflib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from langchain_gkt.students.tokenization.recent_ids import RecentIds

AllowedTokens = Sequence[str] | Literal["all"]
"""Added tokens that users may type, too. ``all`` for every one."""

# Characters for private use (planes 15 and 16), which text very rarely holds.
_UNUSED = re.compile("[\U000f0000-\U0010fffd]")
_FIRST_UNUSED, _LAST_UNUSED = 0xF0000, 0xFFFFD


class ControlTokens:
    """The added tokens of one tokenizer. Finds them in text, and makes ids without them.

    Tokens of only whitespace are left alone, because they mark nothing, and code is full of them.
    """

    def __init__(self, tokenizer: Any, allowed: AllowedTokens = ()) -> None:
        """Prepare a second tokenizer that knows the tokens by other names."""
        backend = tokenizer.backend_tokenizer
        added: dict[int, AddedToken] = backend.get_added_tokens_decoder()
        marks = {i: token for i, token in added.items() if not _is_whitespace(token.content)}
        _refuse_unknown_tokens(allowed, [token.content for token in marks.values()])
        typed = {i: t for i, t in marks.items() if allowed != "all" and t.content not in allowed}
        self._written, self.typed = _Finder(backend, marks), _Finder(backend, typed)
        nonce = secrets.token_hex(16)  # nobody can type the names
        self._names = {token: f"\U0010fffd{nonce}-{token}\U0010fffc" for token in marks}
        self._plain = _splits_like(backend, _model_without(backend, marks, self._names))
        renamed = {i: self._names.get(i, token.content) for i, token in added.items()}
        self._plain.add_tokens([_renamed(added[i], name) for i, name in renamed.items()])
        ids = {i: self._plain.token_to_id(name) for i, name in renamed.items()}
        self._ids = {new: i for i, new in ids.items() if new is not None and new != i}
        self.in_template = set(_UNUSED.findall(str(tokenizer.chat_template)))
        self._before, self._after = _surrounding(tokenizer)
        # A guided call makes ids of its prompt three times: for check, prefill and request.
        self._recent = RecentIds()

    def ids(self, text: str, uncover: Mapping[int, str]) -> list[int]:
        """Make ids of a prompt, the control tokens in it included.

        What is behind covered characters never makes control tokens.
        """
        parts = json.dumps([text, *uncover.items()])
        return self._recent.get(parts, lambda: self._encoding(text, uncover)[1])

    def encode(self, text: str, uncover: Mapping[int, str]) -> tuple[list[int], list[str]]:
        """Make ids as `ids` does, and return the text of each, too."""
        whole, ids, offsets = self._encoding(text, uncover)
        return ids, [whole[start:end] for start, end in offsets]

    def _encoding(
        self, text: str, uncover: Mapping[int, str]
    ) -> tuple[str, list[int], list[tuple[int, int]]]:
        parts, at = [], 0
        for token, start, end in self._written.find(text):
            parts += [text[at:start], self._names[token]]
            at = end
        whole = "".join([*parts, text[at:]]).translate(dict(uncover))
        encoding = self._plain.encode(whole, add_special_tokens=False)
        return whole, [self._ids.get(token, token) for token in encoding.ids], encoding.offsets

    def surround(self, ids: list[int]) -> list[int]:
        """Add what the tokenizer puts around a text, such as the beginning-of-text token."""
        return [*self._before, *ids, *self._after]


class CoveredText:
    """The texts of one prompt, covered where they look like control tokens."""

    def __init__(self, tokens: ControlTokens, *texts: Any) -> None:
        """Look for control tokens in all texts: strings, and lists and objects of strings."""
        self._tokens = tokens
        self._twins: dict[str, str] = {}  # stand-ins of characters
        self._uncover: dict[int, str] = {}
        strings = list(_strings(texts))
        self._covers = any(any(tokens.typed.find(string)) for string in strings)
        if self._covers:
            taken = {c for string in strings for c in _UNUSED.findall(string)} | tokens.in_template
            free = map(chr, range(_FIRST_UNUSED, _LAST_UNUSED))
            self._free = (character for character in free if character not in taken)

    def of(self, value: Any) -> Any:
        """Return one of the texts, covered. Keys are covered, too."""
        if not self._covers:
            return value
        if isinstance(value, str):
            return self._cover(value)
        if isinstance(value, Mapping):
            return {self.of(key): self.of(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(inner) for inner in value]
        return value

    def _cover(self, text: str) -> str:
        while True:
            characters = list(text)
            for _, start, end in self._tokens.typed.find(text):
                for at in range(start, max(end, start + 1)):
                    characters[at] = self._twin(characters[at])
            covered = "".join(characters)
            if covered == text:
                return text
            text = covered  # the rest may make a token, too

    def _twin(self, character: str) -> str:
        if ord(character) in self._uncover:
            return character
        if character not in self._twins:
            twin = self._twins[character] = next(self._free)
            self._uncover[ord(twin)] = character
        return self._twins[character]

    def ids(self, text: str) -> list[int]:
        """Make ids of a prompt that contains covered texts. See `ControlTokens.ids`."""
        return self._tokens.ids(text, self._uncover)

    def encode(self, text: str) -> tuple[list[int], list[str]]:
        """Make ids of a text that contains covered texts. See `ControlTokens.encode`."""
        return self._tokens.encode(text, self._uncover)


class _Finder:
    """Finds added tokens in a text as the tokenizer does, without the cost of tokenising it."""

    def __init__(self, backend: Tokenizer, marks: Mapping[int, AddedToken]) -> None:
        rest = secrets.token_hex(16)
        self._finder = Tokenizer(WordLevel({rest: 0}, unk_token=rest))
        if backend.normalizer is not None:
            self._finder.normalizer = backend.normalizer
        # Whitespace around a token is not part of it.
        self._finder.add_tokens(
            [
                AddedToken(t.content, normalized=t.normalized, single_word=t.single_word)
                for t in marks.values()
            ]
        )
        self._ids = {self._finder.token_to_id(t.content): i for i, t in marks.items()}

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Yield id, start and end of each token."""
        if not self._ids:
            return
        encoding = self._finder.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self._ids:
                yield self._ids[token], start, end


def _is_whitespace(text: str) -> bool:
    return not text.replace("\u2581", " ").strip()  # SentencePiece's space


def _renamed(token: AddedToken, name: str) -> AddedToken:
    same = name == token.content
    return AddedToken(
        name,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word and same,
        normalized=token.normalized and same,
        special=token.special,
    )


def _model_without(
    backend: Tokenizer, marks: Mapping[int, AddedToken], names: Mapping[int, str]
) -> Any:
    """Return the tokenizer's model, changed if it makes control tokens of ordinary text."""
    model = backend.model
    known = {i: token.content for i, token in marks.items() if model.token_to_id(token.content)}
    if not known or not _can_make(backend, known):
        return model
    data = json.loads(backend.to_str())
    data |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    inner, renamed = data["model"], {text: names[i] for i, text in known.items()}
    if isinstance(inner["vocab"], list):
        inner["vocab"] = [[renamed.get(text, text), score] for text, score in inner["vocab"]]
    else:
        inner["vocab"] = {renamed.get(text, text): i for text, i in inner["vocab"].items()}
    if inner.get("unk_token") in renamed:
        inner["unk_token"] = renamed[inner["unk_token"]]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in inner.get("merges", ())]
    if pairs:
        parts = [({*pair, "".join(pair)}, pair) for pair in pairs]
        inner["merges"] = [pair for pieces, pair in parts if not pieces & renamed.keys()]
    return Tokenizer.from_str(json.dumps(data)).model


def _can_make(backend: Tokenizer, known: Mapping[int, str]) -> bool:
    """Whether the model makes tokens of their text without a search for added tokens."""
    model = backend.model
    if type(model).__name__ != "BPE" or getattr(model, "ignore_merges", False):
        return True  # it takes whole words, or pieces, of its vocabulary
    bare = _splits_like(backend, model)
    texts = [between.join(known.values()) for between in ("", " ", "\n")]
    tokens = {token for text in texts for token in bare.encode(text, add_special_tokens=False).ids}
    return not tokens.isdisjoint(known)


def _splits_like(backend: Tokenizer, model: Any) -> Tokenizer:
    """Return a tokenizer with a model, and another one's rules for splitting a text."""
    tokenizer = Tokenizer(model)
    for part in ("normalizer", "pre_tokenizer"):
        if (value := getattr(backend, part)) is not None:
            setattr(tokenizer, part, value)
    return tokenizer


def _surrounding(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return what a tokenizer puts before and after a text."""
    inner = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for at in range(len(whole) - len(inner) + 1):
        if whole[at : at + len(inner)] == inner:
            return whole[:at], whole[at + len(inner) :]
    return [], []


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _refuse_unknown_tokens(allowed: AllowedTokens, known: Sequence[str]) -> None:
    for text in () if allowed == "all" else allowed:
        if text not in known:
            near = difflib.get_close_matches(text, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise ValueError(
                f"allowed_added_tokens names {text!r}, which is no added token of the student's "
                f"tokenizer; {hint}"
            )
