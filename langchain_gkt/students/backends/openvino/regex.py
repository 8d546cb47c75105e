"""Regular expressions in place of masked logits, which OpenVINO GenAI does not offer.

Its grammar engine (xgrammar) matches bytes of text, never control tokens. So a set of texts stands
for a set of tokens: all tokens that can begin one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

ANY = r"[\s\S]*"
_SPECIAL = set("\\^$.*+?()[]{}|/")
# Larger sets of texts are not spelled out. Their first characters stand for them.
_MOST_WORDS = 64


def literal(text: str) -> str:
    """Write a text as a regular expression that matches nothing else."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text)


def words_pattern(words: Collection[bytes]) -> str | None:
    """Return an expression for a few exact texts. None if they are many, or half characters."""
    if not 0 < len(words) <= _MOST_WORDS:
        return None
    try:
        return "(" + "|".join(literal(word.decode()) for word in sorted(words)) + ")"
    except UnicodeDecodeError:
        return None


def beginnings_pattern(words: Iterable[bytes], refused: Iterable[bytes], *, may_end: bool) -> str:
    """Return an expression for texts that begin like some words and like none of the refused.

    Args:
        words: What may come next. A text begins like one if their first characters are equal.
        refused: Beginnings that a text may not have.
        may_end: Whether an empty text is allowed, too.
    """
    first = {word[:1] for word in words}
    refusals = [_decoded(word) for word in refused]
    texts = [text for text in refusals if text]
    # Half a character cannot be written down. Then no character of its kind is allowed.
    other = any(byte >= b"\x80" for byte in first) and None not in refusals
    ascii_first = sorted(byte.decode() for byte in first if byte < b"\x80")
    free = [literal(c) for c in ascii_first if not any(t.startswith(c) for t in texts)]
    bound = [c for c in ascii_first if any(t.startswith(c) for t in texts)]
    parts = [f"({'|'.join(free)}){ANY}"] if free else []
    if other:
        outside = sorted({t[0] for t in texts if not t[0].isascii()})
        bound += outside
        parts.append(f"[^\\x00-\\x7f{''.join(outside)}]{ANY}")
    for c in bound:
        rest = _not_beginning([t[1:] for t in texts if t.startswith(c)])
        parts += [] if rest is None else [literal(c) + rest]
    return f"({'|'.join(parts)})" + ("?" if may_end else "")


def _decoded(word: bytes) -> str | None:
    try:
        return word.decode()
    except UnicodeDecodeError:
        return None


def _not_beginning(texts: list[str]) -> str | None:
    """Return an expression for all texts that begin like none of some. None if there is none."""
    if "" in texts:
        return None
    heads = sorted({text[0] for text in texts})
    parts = [f"({_other_than(heads)}){ANY}"]
    for head in heads:
        rest = _not_beginning([text[1:] for text in texts if text[0] == head])
        parts += [] if rest is None else [literal(head) + rest]
    return f"({'|'.join(parts)})?"


def _other_than(characters: list[str]) -> str:
    escapes = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    inside = (escapes.get(c, f"\\{c}" if c in "\\^[]-" else c) for c in characters)
    return f"[^{''.join(inside)}]"
