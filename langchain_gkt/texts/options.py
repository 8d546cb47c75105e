"""Decides whether a written-out answer is right if the answer is an option's letter.

An answer is *stated* if the text says so ("The answer is (C).", "Answer: C", "C is the best
choice"). The first statement counts, else the last option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from langchain_gkt.texts.statements import LABEL, ExtractionRule, extract, find_statements

_ENDS = r"(?![\w&+#°]|['-]\w|\.[A-Za-z]\b)"  # not E-mail, U.S. or C++
_VERB = r"(?:is|was|are|and|or|because|since|fits|can|could|would|does|has|isn|the|as)\b"
_LETTER = re.compile(  # "a" counts only in brackets, before a mark or at the end
    r"(?:(?i:(?:the|letter|option|choice|answer|either|both|most|likely|probably|therefore)\b)"
    r"|\\f?boxed|[\s:*\"'$>~])*"
    r"(?:[(\[{]+\s*(?P<held>[A-Za-z])\s*[)\]}.:,]|(?P<closed>[A-Za-z])\)"
    rf"|(?P<alone>[A-Z]){_ENDS}|(?P<small>[a-z])(?=\s*(?:[]'.,:;!?}}\"$]|\n|\Z)){_ENDS})"
    rf"(?P<more>[)\]]?\s*(?:/|\bor\b|\band\b)\s*[(\[]?[A-Z]\b{_ENDS})?"  # A or B
)
# (B) and B), but not f(a), P(A) or the end of (x + B).
_HELD = re.compile(r"(?<![A-Za-z0-9])[(\[]\s*([A-Za-z])\s*[)\]]|(?<![\w(\[{'.])([A-Za-z])\)")
_STANDING = re.compile(rf"(?<![\w'&°/+#@^-])(?<![A-Z]\.)([A-Z]){_ENDS}(?!\s*[=<>^*×÷])")  # noqa: RUF001
_PICKED = re.compile(r"(?:\b(?:option|choice|answer|is|be)|[=(])\s*\Z", re.IGNORECASE)
_UNIT = re.compile(r"(?:[0-9][ \t]?|\b(?:vitamin|plan|grade|type|hepatitis)\s)\Z", re.IGNORECASE)
_ARTICLE = re.compile(rf"[ \t]+(?!{_VERB})\w")
_NAME = re.compile(  # John D. Rockefeller, C. S. Lewis
    r"\b(?!(?:So|Hence|Thus|Therefore|Pick|Choose|\w+ly)\b)[A-Z](?:[a-z]+|\.)\s[A-Z]\.\s?[A-Z]"
    r"|[A-Z]\.\s?[A-Z]\."
)
_IS_RIGHT = re.compile(  # B is the correct answer
    r"(?:[(\[](?P<held>[A-Za-z])[)\]][\w ,':-]{0,60}?|(?<![\w'.-])(?P<alone>[A-Z])\)?)"
    r"\s+(?:is|must\s+be|would\s+be)\s+(?:correct\b|right(?=\s*(?:[.,;!]|\Z))|"
    r"(?:the|our|my)\s+(?!wrong|incorrect|worst)(?:\w+\s+){0,2}?(?:answer|option|choice)\b)"
)
_FIRST = re.compile(  # B: mall
    rf"\s*(?i:(?:option|choice)\s+)?(?:[(\[]\s*([A-Za-z])\s*[)\]](?!\s*{_VERB})"
    r"|([A-Za-z])(?:[):,]|\.(?!\s?[A-Za-z]\.)|\s+[-–—]\s|\s*(?:\n|\Z)))"  # noqa: RUF001
)
_LAST = re.compile(r"(?:^\W*|\b(?i:answer|ans|option|choice)\W+)([A-Z])\W*$")  # Answer D


def _held(text: str) -> list[str]:
    """Return the letters in brackets, in order, in capitals."""
    letters = []
    for match in _HELD.finditer(text):
        if match[1] or not re.search(r"\([^()\n]*$", text[: match.start()][-80:]):
            letters.append((match[1] or match[2]).upper())
    return letters


def _standing(text: str) -> list[str]:
    """Return the capitals that stand alone and are not an article, unit, grade or initial."""
    letters = []
    inside = {at for name in _NAME.finditer(text) for at in range(name.start(), name.end() - 1)}
    for match in _STANDING.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        article = match[1] in "AI" and _ARTICLE.match(text, match.end())
        other = article or match.start() in inside or _UNIT.search(before)
        if not other or _PICKED.search(before):
            letters.append(match[1])
    return letters


def _letter_at(text: str, start: int, trigger: str) -> str | None:
    """Return the letter right after a trigger, or "" if there are two."""
    if (match := _LETTER.match(text, start)) is None:
        return None
    article = match["alone"] == "A" and _ARTICLE.match(text, match.end("alone"))
    if article and re.search(r"[:\n]", trigger):  # the "A" of a new sentence
        return None
    letter = match["held"] or match["closed"] or match["alone"] or match["small"]
    return "" if match["more"] else letter.upper()


def _stated_option(text: str, options: str) -> str | None:
    """Return the letter of the first statement, or "" if it is none of the options."""
    known, statements = {*options, *"ABCDE"}, list(find_statements(text))
    for trigger, start, _ in [*statements, *find_statements(text, LABEL)]:
        letter = _letter_at(text, start, trigger)
        if letter is not None and (not letter or letter in known):
            return letter if letter in options else ""
    named = [(right["held"] or right["alone"]).upper() for right in _IS_RIGHT.finditer(text)]
    for _, start, end in statements:
        named += (_held(text[start:end]) or _standing(text[start:end]))[:1]
    if last := _LAST.search(text.rstrip().rpartition("\n")[2][-40:]):
        named.append(last[1].upper())
    if first := _FIRST.match(text):
        letter, rest = (first[1] or first[2]).upper(), text[first.end() :]
        # A list of all options also begins with "A)".
        if letter != "A" or not {*_held(rest), *_standing(rest)} - {"A"}:
            named.append(letter)
    return next((letter for letter in named if letter in options), None)


def _last_option(text: str, how: str, options: str) -> str | None:
    for letters in (_held(text), _standing(text), [text.strip(" \n.:").upper()]):
        if known := [letter for letter in letters if letter in [*options]]:
            return known[-1]
    return None


def extract_option(text: str, how: ExtractionRule = "answer", options: str = "ABCDE") -> str | None:
    """Return the letter of the option that an answer picks, or None if it picks none or two.

    Args:
        text: The answer as a model wrote it.
        how: As for `extract_number`. Statements are "The answer is (E)", "Answer: E", "E is the
            best choice", an answer that begins with "E) mall" or whose last line is "Answer E".
            ``flexible`` takes the last letter in brackets, else the last capital alone.
        options: The letters to choose from.

    Raises:
        ValueError: If ``how`` is unknown or ``options`` is not made of letters.
    """
    if not options.isalpha():
        raise ValueError(f"options must be letters, as 'ABCDE' is, not {options!r}")
    letters = options.upper()
    stated, last = partial(_stated_option, options=letters), partial(_last_option, options=letters)
    return extract(text, how, stated, last) or None


def exact_option(gold: str) -> str:
    """Return a right option, "E", "(E)" or "e", as a capital. Others raise a `ValueError`."""
    if (match := re.fullmatch(r"\s*\(?\s*([A-Ea-e])\s*[).:]?\s*", gold)) is None:
        raise ValueError(f"gold must be a letter from A to E, as 'E' or '(E)', not {gold!r}")
    return match[1].upper()


def option_matches(answer_text: str, gold: str) -> bool:
    """Return whether an answer picks the right option, as `exact_option` reads it."""
    return extract_option(answer_text) == exact_option(gold)


def states_option(guidance: str, gold: str, choices: Mapping[str, str]) -> bool:
    """Return whether a guidance gives the right option away.

    It does if it states the letter, or brackets it without listing all letters, or names the right
    choice's text as whole words and no other's. A text inside a longer named one ("store" in
    "department store") is not named.

    Raises:
        ValueError: If ``gold`` is not a letter from A to E or not among the choices.
    """
    letter, held = exact_option(gold), {*_held(guidance)}
    if letter not in choices:
        raise ValueError(f"gold must be one of the choices {', '.join(choices)}, not {gold!r}")
    if extract_option(guidance, "strict") == letter or (letter in held and not held >= {*choices}):
        return True
    named: set[str] = set()
    for text in sorted({*choices.values()} - {""}, key=len, reverse=True):
        words = r"\s+".join(map(re.escape, text.split()))
        whole = rf"(?<!\w)(?<![0-9][.,]){words}(?!\w|[.,][0-9])"
        guidance, count = re.subn(whole, "\0", guidance, flags=re.IGNORECASE)
        named |= {key for key in choices if count and choices[key] == text}
    return named == {letter}
