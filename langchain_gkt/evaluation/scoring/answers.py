"""Decides whether a written-out answer is right: a number, or an option's letter.

An answer is *stated* where the text says so ("The answer is 18.", "#### 18", "Answer: C"): the
first statement counts, else the last number or option. How numbers are read:

- "1,234", "1,00,000" and "1 234" with a no-break or thin blank are one number; "3,15" and
  "3, 15" are two. So "1,500" is fifteen hundred, and the European decimal "1,5" is 1 and 5.
- A minus is a sign only directly before a number ("is -5", "-$5", "$-5") and not after another
  number or a letter: "16-3" is 16 and 3.
- Units may be glued to a number ("5kg", "12th"; "50%" is 50), but digits that end a word
  ("A4", "H2O") are no number. Number words are not read: not "five", and "2 million" is 2.
- Fractions ("1/2", "2 1/2") and "1 234" without currency are read only in a statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Literal, TypeAlias, TypeVar

How: TypeAlias = Literal["answer", "strict", "flexible"]
T = TypeVar("T", str, Decimal)

_MARKUP = {  # what stands in the way of numbers and letters, and what is read in its place
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
_LABEL = re.compile(rf"(?:{_NOUN}\s*:|\bans\s*\.|\banswer\.(?=[A-E]\b)){_OPENING}", re.IGNORECASE)
_STOP = r"(?<!\bRs)(?<!pprox)(?:[.?]|(?<![0-9])!)(?:(?=[\"')\]}]*(?:\s|$))|(?<![A-Z].)(?=[A-Z]))"
_SENTENCE = re.compile(rf"(?s).{{0,400}}?(?:{_STOP}|\n|$)|.{{400}}")  # the limit saves time


def _plain(text: str) -> str:
    for pattern, plain in _MARKUP.items():
        text = re.sub(pattern, plain, text)
    return text


def _extract(
    text: str, how: str, stated: Callable[[str], T | None], last: Callable[[str, str], T | None]
) -> T | None:
    """Read an answer one of the three ways."""
    if how not in ("answer", "strict", "flexible"):
        raise ValueError(f"how must be 'answer', 'strict' or 'flexible', not {how!r}")
    if how == "flexible":
        return last(_plain(text), how)
    turn = _plain(_NEXT_TURN.split(text, maxsplit=1)[0])  # what a base model runs on into
    if (found := stated(turn)) is not None:
        return found
    return stated(_plain(text)) if how == "strict" else last(turn, how)


def _statements(text: str, trigger: re.Pattern[str] = _STATEMENT) -> Iterator[tuple[str, int, int]]:
    """Yield each trigger, and where the sentence after it begins and ends."""
    for found in trigger.finditer(text):
        sentence = _SENTENCE.match(text, found.end())
        if sentence and not sentence[0].startswith("not "):
            yield found[0], *sentence.span()


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
# What a minus takes away from: a word or bracket that it touches, or a number.
_OPERAND = re.compile(r"(?:[A-Za-z0-9)\]%\u2212\u2013-]|[0-9%][$€£¥₹]?[ \t\u00a0]*)\Z")
_OVER = re.compile(r"\s?/\s?([0-9]{1,9})(?!\s?[/0-9]|[.,][0-9])")
_MIXED = re.compile(r"(?:\s+and)?\s+([0-9]{1,9})\s?/\s?([0-9]{1,9})(?![/0-9])")
_BLANK_GROUPS = re.compile(r"(?: [0-9]{3})+(?!\s?[-/0-9]|[.,][0-9])")
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


def _value(text: str, found: re.Match[str]) -> Decimal:
    at, dashes = found.start(), found["lead"].translate(_MINUS).count("-")
    negative = dashes == 1 and not _OPERAND.search(text, max(0, at - 8), at)
    digits = (found["whole"] or "").translate(_MARKS) + (found["part"] or found["bare_part"] or "")
    return Decimal(("-" if negative else "") + digits + (found["power"] or "").translate(_MINUS))


def _stated_value(text: str, found: re.Match[str]) -> Decimal:
    """Return the number, with the fraction or the groups of thousands after it."""
    value, end = _value(text, found), found.end()
    whole = end == found.end("whole")  # no decimals
    if whole and (mixed := _MIXED.match(text, end)) and int(mixed[1]) < int(mixed[2]):
        part = Decimal(mixed[1]) / Decimal(mixed[2])
        return value - part if value < 0 else value + part
    if (over := _OVER.match(text, end)) and int(over[1]):
        return value / Decimal(over[1])
    if whole and len(found["whole"]) < 4 and (groups := _BLANK_GROUPS.match(text, end)):
        return Decimal(f"{value}{groups[0].replace(' ', '')}")
    return value


def _number_of(sentence: str) -> Decimal | None:
    """Return what a statement comes to: of "3 + 4 = 7", "7 = 3 + 4", "that all 3 are 7" the 7."""
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
    for trigger, start, end in _statements(text):
        sentence, first = text[start:end], _NUMBER.match(text, start)
        if "boxed" in trigger:
            sentence = sentence[1:].partition("}")[0]
        elif "#" in trigger and not (first and not _HEADING.match(text, first.end())):
            continue
        if (value := _number_of(sentence)) is not None:
            return value
    for _, start, end in _statements(text, _LABEL):
        # "Answer:" may also open a whole chain of thought, whose first number is none.
        sentence, first = text[start:end], _NUMBER.match(text, start)
        if first and _ALONE.fullmatch(text, first.end(), end):
            return _stated_value(text, first)
        said = {_value(sentence, found) for found in _NUMBER.finditer(sentence)}
        if not _NUMBER.search(text, end) and ("=" in sentence or len(said) == 1):
            return _number_of(sentence)
    return None


def _last_number(text: str, how: str) -> Decimal | None:
    if how == "answer" and (equals := re.search(r"=\s*(?=[^=]*\Z)", text)):
        result = _NUMBER.match(text, equals.end())
        if result and _RESULT_END.match(text, result.end()):
            return _value(text, result)
    return next(reversed([_value(text, found) for found in _NUMBER.finditer(text)]), None)


def numbers_in(text: str) -> list[Decimal]:
    """Return every number of a text, in order; a fraction is two."""
    text = _plain(text)
    return [_value(text, found) for found in _NUMBER.finditer(text)]


def extract_number(text: str, how: How = "answer") -> Decimal | None:
    """Return the number that an answer gives, or None.

    Args:
        text: The answer as a model wrote it.
        how: ``strict``: the first number stated as the answer. ``flexible``: the last number of
            the text. ``answer``: the stated one, else what a closing equation comes to ("that
            is 4 + 5 = 9 points in 40 minutes"), else the last one, all without the next
            question, "Q: ...", that a base model may run on into.

    Raises:
        ValueError: If ``how`` is unknown.
    """
    return _extract(text, how, _stated_number, _last_number)


def exact_number(gold: str | int | float | Decimal) -> Decimal:
    """Return a right answer, such as 18, "-3", "$1,234.50" or "#### 70,000", exactly.

    Raises:
        ValueError: If it holds no number.
    """
    if (value := _number_of(_plain(str(gold).rpartition("####")[2]))) is None:
        raise ValueError(f"gold must hold a number, as 18 or '#### 18' do, not {gold!r}")
    return value


def number_matches(answer_text: str, gold: str | int | float | Decimal) -> bool:
    """Say whether an answer gives exactly the right number, as `exact_number` reads it."""
    return extract_number(answer_text) == exact_number(gold)


def states_number(guidance: str, gold: str | int | float | Decimal, question: str = "") -> bool:
    """Say whether a guidance states the right number or names it where the question does not."""
    value = exact_number(gold)
    mentioned = value in numbers_in(guidance) and value not in numbers_in(question)
    return mentioned or extract_number(guidance, "strict") == value


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
    for found in _HELD.finditer(text):
        if found[1] or not re.search(r"\([^()\n]*$", text[: found.start()][-80:]):
            letters.append((found[1] or found[2]).upper())
    return letters


def _standing(text: str) -> list[str]:
    """Return the capitals that stand alone and are no article, unit, grade or initial."""
    letters = []
    inside = {at for name in _NAME.finditer(text) for at in range(name.start(), name.end() - 1)}
    for found in _STANDING.finditer(text):
        before = text[max(0, found.start() - 12) : found.start()]
        article = found[1] in "AI" and _ARTICLE.match(text, found.end())
        other = article or found.start() in inside or _UNIT.search(before)
        if not other or _PICKED.search(before):
            letters.append(found[1])
    return letters


def _letter_at(text: str, start: int, trigger: str) -> str | None:
    """Return the letter right after a trigger; "" where there are two."""
    if (found := _LETTER.match(text, start)) is None:
        return None
    article = found["alone"] == "A" and _ARTICLE.match(text, found.end("alone"))
    if article and re.search(r"[:\n]", trigger):  # the "A" of a new sentence
        return None
    letter = found["held"] or found["closed"] or found["alone"] or found["small"]
    return "" if found["more"] else letter.upper()


def _stated_option(text: str, options: str) -> str | None:
    """Return the letter of the first statement; "" where it is none of the options."""
    known, statements = {*options, *"ABCDE"}, list(_statements(text))
    for trigger, start, _ in [*statements, *_statements(text, _LABEL)]:
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


def extract_option(text: str, how: How = "answer", options: str = "ABCDE") -> str | None:
    """Return the letter of the option that an answer picks, or None where it picks none or two.

    Args:
        text: The answer as a model wrote it.
        how: As for `extract_number`. Stated are "The answer is (E)", "Answer: E", "E is the best
            choice", an answer that begins with "E) mall" or whose last line is "Answer E".
            ``flexible`` takes the last letter in brackets, else the last capital alone.
        options: The letters to choose from.

    Raises:
        ValueError: If ``how`` is unknown or ``options`` is not made of letters.
    """
    if not options.isalpha():
        raise ValueError(f"options must be letters, as 'ABCDE' is, not {options!r}")
    letters = options.upper()
    stated, last = partial(_stated_option, options=letters), partial(_last_option, options=letters)
    return _extract(text, how, stated, last) or None


def exact_option(gold: str) -> str:
    """Return a right option, written as "E", "(E)" or "e", as a capital.

    Raises:
        ValueError: If it is no letter from A to E.
    """
    if (found := re.fullmatch(r"\s*\(?\s*([A-Ea-e])\s*[).:]?\s*", gold)) is None:
        raise ValueError(f"gold must be a letter from A to E, as 'E' or '(E)', not {gold!r}")
    return found[1].upper()


def option_matches(answer_text: str, gold: str) -> bool:
    """Say whether an answer picks the right option, as `exact_option` reads it."""
    return extract_option(answer_text) == exact_option(gold)


def states_option(guidance: str, gold: str, choices: Mapping[str, str]) -> bool:
    """Say whether a guidance gives the right option away.

    It does where it states the letter, or brackets it without listing all letters, or names the
    right choice's text as whole words and no other's. A text inside a longer named one ("store"
    in "department store") is not named.

    Raises:
        ValueError: If ``gold`` is no letter from A to E or not among the choices.
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
