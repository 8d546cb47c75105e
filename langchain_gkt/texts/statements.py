"""Finds where a text states its answer: "The answer is ...", "#### ...", "Answer: ...".

The common part of numbers and options: how to read markup, and which statement counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Literal, TypeAlias, TypeVar

ExtractionRule: TypeAlias = Literal["answer", "strict", "flexible"]
"""Where in a text to look for its answer. See `extract_number`."""

T = TypeVar("T", str, Decimal)

_MARKUP = {  # markup around numbers and letters, and its replacement
    "[‘’]": "'",  # noqa: RUF001
    "[“”]": '"',
    r"\\([$%#&_])": r"\1",  # \$5, 5\%
    r"\{,\}|,\\!": ",",  # 1{,}234
    r"\\[,;]": "\u2009",  # 1\,234
    r"\\(?:text\w*|math\w\w|mbox)\s*\{([^{}]*)\}": r"\1",
    r"(?<=[0-9])\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}": r" \1/\2",  # a mixed number
    r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}": r"\1/\2",
    r"\\(?:times|cdot)(?![A-Za-z])": "*",
    r"\\approx(?![A-Za-z])": "≈",
    "½": " 1/2",
    r"\b[Nn]egative (?=[$0-9])|(?<=\bis )minus (?=[$0-9])": "-",
    r"\\(?:left|right|quad)(?![A-Za-z])|\\[()\[\] ]": " ",
    # Bold and code marks, but not the power of 2**3.
    r"(?<![A-Za-z0-9)])(?:\*\*+|__+|`+)|(?:\*\*+|__+|`+)(?![A-Za-z0-9(])": "",
}
_NEXT_TURN = re.compile(r"(?i)(?<=\S)\s*\n[ \t*#]*(?:Q|Question)[ *]*[0-9]*[ *]*:")
_BEST = r"(?:final|correct|right|best|logical|appropriate|(?:most|only)\s+\w+)"
_NOUN = (  # not "if the answer is 5, then"
    r"(?<!\bif\sthe\s)(?<!whether\sthe\s)(?<!suppose\sthe\s)(?<!assume\sthe\s)"
    rf"\b(?:answer|ans|{_BEST}\s+(?:option|choice))"
)
_OPENING = r"(?:\.{2,}|[\s:*\"'=≈~>…])*"
_STATEMENT = re.compile(
    rf"""(?:
    {_NOUN} (?:\s*\([^()\n]*\))?                           # (arabic numerals)
        (?:,?\s+(?:to|for|of|in)\s[^.!?:=\n]{{1,80}}?)?    # to the question
        (?:,?\s+(?:then|thus|therefore|hence)\b)?,?
        \s*(?: (?: is | was | equals | (?:would|will|should|must|has\s+to|can\s+only)\s+be
                 | turns\s+out\s+to\s+be | comes?\s+(?:out\s+)?to ) \b | = )
    | \bfinal\s+answer\s*: | (?<!\#)\#{{4}}(?!\#) | \\f?boxed\s*(?=\{{) | <answer>
    ){_OPENING}""",
    re.IGNORECASE | re.VERBOSE,
)
LABEL = re.compile(rf"(?:{_NOUN}\s*:|\bans\s*\.|\banswer\.(?=[A-E]\b)){_OPENING}", re.IGNORECASE)
_STOP = r"(?<!\bRs)(?<!pprox)(?:[.?]|(?<![0-9])!)(?:(?=[\"')\]}]*(?:\s|$))|(?<![A-Z].)(?=[A-Z]))"
_SENTENCE = re.compile(rf"(?s).{{0,400}}?(?:{_STOP}|\n|$)|.{{400}}")  # the limit saves time


def plain_text(text: str) -> str:
    """Return a text without the markup between words, signs and digits."""
    for pattern, plain in _MARKUP.items():
        text = re.sub(pattern, plain, text)
    return text


def extract(
    text: str,
    how: ExtractionRule,
    stated: Callable[[str], T | None],
    last: Callable[[str, str], T | None],
) -> T | None:
    """Read an answer by one of the three rules. Raises a `ValueError` for another.

    Args:
        text: The answer as a model wrote it.
        how: The rule.
        stated: Returns the first stated answer of a text, or None.
        last: Returns the last number or option of a text, or None. It also takes the rule.
    """
    if how not in ("answer", "strict", "flexible"):
        raise ValueError(f"how must be 'answer', 'strict' or 'flexible', not {how!r}")
    if how == "flexible":
        return last(plain_text(text), how)
    turn = plain_text(_NEXT_TURN.split(text, maxsplit=1)[0])  # a base model may run on into it
    if (answer := stated(turn)) is not None:
        return answer
    return stated(plain_text(text)) if how == "strict" else last(turn, how)


def find_statements(
    text: str, trigger: re.Pattern[str] = _STATEMENT
) -> Iterator[tuple[str, int, int]]:
    """Yield each trigger, and where the sentence after it begins and ends."""
    for match in trigger.finditer(text):
        sentence = _SENTENCE.match(text, match.end())
        if sentence and not sentence[0].startswith("not "):
            yield match[0], *sentence.span()
