"""Decides whether a written-out answer is right if the answer is a number.

An answer is *stated* if the text says so ("The answer is 18.", "#### 18", "Answer: 18"). The first
statement counts, else the last number. How numbers are read:

- "1,234", "1,00,000" and "1 234" with a no-break or thin space are one number. "3,15" and
  "3, 15" are two. So "1,500" is fifteen hundred, and the European decimal "1,5" is 1 and 5.
- A minus is a sign only directly before a number ("is -5", "-$5", "$-5") and not after another
  number or a letter. "16-3" is 16 and 3.
- Units may be glued to a number ("5kg", "12th", and "50%" is 50), but digits that end a word
  ("A4", "H2O") are not a number. Number words are not read: not "five", and "2 million" is 2.
- Fractions ("1/2", "2 1/2") and "1 234" without currency are read only in a statement.
"""

from __future__ import annotations

import re
from decimal import Decimal

from langchain_gkt.texts.statements import (
    LABEL,
    ExtractionRule,
    extract,
    find_statements,
    plain_text,
)

_NUMBER = re.compile(
    r"""
    (?P<lead> [-+\u2212\u2013]? (?:[A-Z]{0,3}(?P<money>[$€£¥₹])\s?)? [-\u2212\u2013]? )
    (?: (?<![A-Za-z0-9]) (?<![A-Za-z0-9]_) | (?<=[0-9][xX]) )  # not in A4, but in 3x4
    (?: (?P<whole>
          [1-9][0-9]{0,2} (?P<mark>[,\u00a0\u2009\u202f]|(?(money)[ ]|,)) [0-9]{3}
            (?:(?P=mark)[0-9]{3}){0,9} (?!(?P=mark)?[0-9])      # 1,234,567; after money 1 234
        | [1-9][0-9]? (?:,[0-9]{2}){1,9} ,[0-9]{3} (?!,?[0-9])  # 12,34,567
        | [0-9]+ )
        (?P<part> \.[0-9]+ )?
      | (?<![.)]) (?P<bare_part> \.[0-9]+ ) )               # .5
    (?P<power> [eE][-+\u2212]?[0-9]{1,3} (?![0-9]) )?       # 1e3
    """,
    re.VERBOSE,
)
_MINUS = str.maketrans("\u2212\u2013", "--")
_MARKS = str.maketrans("", "", " ,\u00a0\u2009\u202f")
# What a minus subtracts from: a word or bracket that it touches, or a number.
_OPERAND = re.compile(r"(?:[A-Za-z0-9)\]%\u2212\u2013-]|[0-9%][$€£¥₹]?[ \t\u00a0]*)\Z")
_OVER = re.compile(r"\s?/\s?([0-9]{1,9})(?!\s?[/0-9]|[.,][0-9])")
_MIXED = re.compile(r"(?:\s+and)?\s+([0-9]{1,9})\s?/\s?([0-9]{1,9})(?![/0-9])")
_SPACE_GROUPS = re.compile(r"(?: [0-9]{3})+(?!\s?[-/0-9]|[.,][0-9])")
_SUM = re.compile(  # what follows the first number of a sum
    r"[ \t]*(?:[%$€£]|[A-Za-z]+[ \t]+){0,2}[ \t]*"
    r"(?:[-+*/×÷x^\u2212\u2013]|\b(?:of|times|plus|minus|(?:divided|multiplied) by)\b)"  # noqa: RUF001
    r"[($\s]*[0-9.]"
)
_EQUALS = re.compile(r",?\s*\b(?:which\s+)?(?:is|equals|makes|gives)(?:\s+equal\s+to)?\b|≈")
_REASON = re.compile(r"\b(?:because|since|given|as|if|but|not)\b")
_COMMA = re.compile(r"[,;]\s|\s\(|\bwhich\b")
_IS = re.compile(r"(?<!that)\s(?:is|are|was|were|be|equals|makes)\s+(?:(?:only|about)\s+)?\Z")
_ALONE = re.compile(r"[%$€£¥₹]?[ \t]*(?:[A-Za-z/()]+[ \t]+){0,2}[A-Za-z/()]*[.!]?\s*")
_HEADING = re.compile(r"[.:)][ \t]*[A-Za-z]")  # #### 1. The eggs
_RESULT_END = re.compile(  # the rest of a last sentence that only says what was counted
    r"(?!.*\b(?:is|are|was|were|so|then|has|have|makes?|leaves|or)\b)[^\n.,;:=+*/×÷!?]*[.!]?\s*\Z"  # noqa: RUF001
)


def _value(text: str, match: re.Match[str]) -> Decimal:
    at, dashes = match.start(), match["lead"].translate(_MINUS).count("-")
    negative = dashes == 1 and not _OPERAND.search(text, max(0, at - 8), at)
    digits = (match["whole"] or "").translate(_MARKS) + (match["part"] or match["bare_part"] or "")
    return Decimal(("-" if negative else "") + digits + (match["power"] or "").translate(_MINUS))


def _stated_value(text: str, match: re.Match[str]) -> Decimal:
    """Return the number, with the fraction or the groups of thousands after it."""
    value, end = _value(text, match), match.end()
    whole = end == match.end("whole")  # no decimals
    if whole and (mixed := _MIXED.match(text, end)) and int(mixed[1]) < int(mixed[2]):
        part = Decimal(mixed[1]) / Decimal(mixed[2])
        return value - part if value < 0 else value + part
    if (over := _OVER.match(text, end)) and int(over[1]):
        return value / Decimal(over[1])
    if whole and len(match["whole"]) < 4 and (groups := _SPACE_GROUPS.match(text, end)):
        return Decimal(f"{value}{groups[0].replace(' ', '')}")
    return value


def _number_of(sentence: str) -> Decimal | None:
    """Return a statement's result. Of "3 + 4 = 7", "7 = 3 + 4", "that all 3 are 7" it is the 7."""
    if (first := _NUMBER.search(sentence)) and _SUM.match(sentence, first.end()):
        sentence = _EQUALS.sub(" = ", sentence)
        first = _NUMBER.search(sentence)
    if first is None:
        return None
    reasoned = _REASON.split(sentence, maxsplit=1)[0]
    clause = _COMMA.split(reasoned, maxsplit=1)[0]
    if "=" in clause:
        left, _, right = reasoned.rpartition("=")
        result = _NUMBER.search(right)
        sum_right = result and _SUM.match(right, result.end())
        turned = sum_right and first.end() <= len(left) and not _SUM.match(left, first.end())
        if result and not turned:
            return _stated_value(right, result)
    else:
        for later in _NUMBER.finditer(clause, first.end()):
            if _IS.search(clause, first.end(), later.start()):
                return _stated_value(sentence, later)
    return _stated_value(sentence, first)


def _stated_number(text: str) -> Decimal | None:
    for trigger, start, end in find_statements(text):
        sentence, first = text[start:end], _NUMBER.match(text, start)
        if "boxed" in trigger:
            sentence = sentence[1:].partition("}")[0]
        elif "#" in trigger and not (first and not _HEADING.match(text, first.end())):
            continue
        if (value := _number_of(sentence)) is not None:
            return value
    for _, start, end in find_statements(text, LABEL):
        # "Answer:" may also open a whole chain of thought, whose first number is not the answer.
        sentence, first = text[start:end], _NUMBER.match(text, start)
        if first and _ALONE.fullmatch(text, first.end(), end):
            return _stated_value(text, first)
        values = {_value(sentence, match) for match in _NUMBER.finditer(sentence)}
        if not _NUMBER.search(text, end) and ("=" in sentence or len(values) == 1):
            return _number_of(sentence)
    return None


def _last_number(text: str, how: str) -> Decimal | None:
    if how == "answer" and (equals := re.search(r"=\s*(?=[^=]*\Z)", text)):
        result = _NUMBER.match(text, equals.end())
        if result and _RESULT_END.match(text, result.end()):
            return _value(text, result)
    return next(reversed([_value(text, match) for match in _NUMBER.finditer(text)]), None)


def numbers_in(text: str) -> list[Decimal]:
    """Return every number of a text, in order. A fraction counts as two."""
    text = plain_text(text)
    return [_value(text, match) for match in _NUMBER.finditer(text)]


def extract_number(text: str, how: ExtractionRule = "answer") -> Decimal | None:
    """Return the number that an answer gives, or None.

    Args:
        text: The answer as a model wrote it.
        how: ``strict``: the first number stated as the answer. ``flexible``: the last number of the
            text. ``answer``: the stated one, else the result of a closing equation ("that is 4 + 5
            = 9 points in 40 minutes"), else the last one. A next question ("Q: ..."), into which a
            base model may run on, is not read.

    Raises:
        ValueError: If ``how`` is unknown.
    """
    return extract(text, how, _stated_number, _last_number)


def exact_number(gold: str | int | float | Decimal) -> Decimal:
    """Return a right answer, such as 18, "-3", "$1,234.50" or "#### 70,000", exactly.

    Raises a `ValueError` if it holds no number.
    """
    if (value := _number_of(plain_text(str(gold).rpartition("####")[2]))) is None:
        raise ValueError(f"gold must hold a number, as 18 or '#### 18' do, not {gold!r}")
    return value


def number_matches(answer_text: str, gold: str | int | float | Decimal) -> bool:
    """Return whether an answer gives exactly the right number, as `exact_number` reads it."""
    return extract_number(answer_text) == exact_number(gold)


def states_number(guidance: str, gold: str | int | float | Decimal, question: str = "") -> bool:
    """Return whether guidance states the right number, or names it when the question does not."""
    value = exact_number(gold)
    mentioned = value in numbers_in(guidance) and value not in numbers_in(question)
    return mentioned or extract_number(guidance, "strict") == value
