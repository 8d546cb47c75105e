"""Where to cut a growing text: after a whole word, a whole sentence, a whole step.

Each function returns a beginning of the text. The result for a longer text begins with the result
for a shorter one, so that it can be shown while the text is still growing.
"""

from __future__ import annotations

import re

# Scripts without spaces between words. Most of their characters may end a word.
_UNSPACED = (
    "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"  # CJK
    "\u0e01-\u0e3a\u0e45-\u0e5b"  # Thai, without the vowels that come before their consonant
    "\u0e81-\u0ebf\u0ec5-\u0eff"  # Lao, likewise
    "\u1000-\u1038\u103a-\u109f"  # Myanmar, without the sign that stacks consonants
    "\u1780-\u17d1\u17d3-\u17ff"  # Khmer, likewise
    "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"  # emoji
)
# Parts of the character before: combining marks, joiners, skin tones, flags' letters.
_ATTACHED = (
    "\u0300-\u036f\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebd\u0ec6-\u0ece\u102b-\u103e"
    "\u1056-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d"
    "\u17b4-\u17d3\u17dd\u200d\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f"
    "\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\U000e0100-\U000e01ef"
)
WORD_EDGE = rf"(?=\s)|(?<=[{_UNSPACED}])(?=[^{_ATTACHED}])"
"""Where to cut a text, as a pattern: before whitespace, or between unspaced characters."""
_WHOLE_WORDS = re.compile(rf"\s*\S.*(?:{WORD_EDGE})\s*", re.DOTALL)
_SENTENCE_END = r"[.!?][\"')\]]*(?=\s)|[。！？]"  # noqa: RUF001
_WHOLE_SENTENCES = re.compile(rf"\s*\S.*(?:{_SENTENCE_END}|\n)\s*", re.DOTALL)

# An equation's result with its unit, up to a comma: "3 * 4 = 12 dollars,".
_RESULT_END = r"=[^\S\n]*[^\s=]*\d[^\s=]*(?:[^\S\n]+[^\W\d]+){0,3}[,;](?=\s)"
_STEP_END = re.compile(rf"{_SENTENCE_END}|{_RESULT_END}|\n")
# The line so far is only a list's number, or ends in an abbreviation.
_NO_END = re.compile(
    r"(?:^\W*(?:step\s*)?(?:\d{1,3}|[a-z])[.)]|(?<!\w)(?:mrs?|ms|dr|st|vs|no|e\.g|i\.e|approx)\.)$",
    re.IGNORECASE,
)
_NO_STEP_LINE = re.compile(
    r"[^\w\]$`]*|.*:[*_]*\s*|\W*(?:step\s*)?\d{1,3}[.)]?\W*|\s*#+\s.*", re.IGNORECASE
)
_OPEN_CLOSE = ((r"\[", r"\]"), (r"\(", r"\)"))
_TWINS = ("$$", "```")


def whole_words(text: str) -> str | None:
    """Return a text up to its last whole word, with the whitespace that shows that it is whole.

    None if there is no edge of a word.
    """
    match = _WHOLE_WORDS.match(text)
    return match[0] if match else None


def whole_sentences(text: str) -> str | None:
    """Return a text up to its last whole sentence or line. None if none is complete."""
    match = _WHOLE_SENTENCES.match(text)
    return match[0] if match else None


def whole_steps(text: str) -> str | None:
    """Return a text up to the last whole step of a worked answer, with the space after it.

    A step ends with a line. Within a line, it ends with a sentence or with an equation's result
    before a comma or semicolon (``3 * 4 = 12 dollars,``). No step ends in a list's number (``1.``),
    a common abbreviation, a heading, a line that announces (``Step 1:``), or inside a formula of
    several lines or a code block. None if no step is complete.
    """
    ends = [match.end() for match in _STEP_END.finditer(text) if _ends_step(text, match)]
    if not ends:
        return None
    rest = text[ends[-1] :]
    return text[: ends[-1]] + rest[: len(rest) - len(rest.lstrip())]


def sentences(text: str) -> list[str]:
    """Split a text into its sentences, without the whitespace around them."""
    return [part for part in map(str.strip, re.split(r"(?<=[.!?])\s+|\n+", text)) if part]


def _ends_step(text: str, match: re.Match[str]) -> bool:
    before = text[: match.end()]
    if any(before.count(opens) > before.count(closes) for opens, closes in _OPEN_CLOSE):
        return False
    if any(before.count(twin) % 2 for twin in _TWINS):
        return False
    line = before.removesuffix("\n").rpartition("\n")[2]
    if match[0] == "\n":
        return not _NO_STEP_LINE.fullmatch(line)
    return not _NO_END.search(line)
