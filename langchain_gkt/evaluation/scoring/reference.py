"""Scores answers as the public code of the GKT paper does, with its faults.

Use it only to compare our numbers with the paper's. Trust `scoring`. The faults kept here:

- If no answer is found, one is drawn at random (0 to 100, or a letter), so that some wrong
  answers count as right. For CommonsenseQA the letter is drawn from A to D, never E.
- Numbers: commas and spaces are deleted before the search for digits, so neighbours join
  ("3, 15" is 315). Signs and decimal points are ignored ("-3" is 3, and "3.5" is 5, or 3 if the
  first digits count).
- Without "the answer is" in the output, the last digits of question and output count. That is a
  number of the question if the output has none.
- Options: only "The answer is B", in this spelling, is found. "The answer is (B)" is not, and
  "The answer is Bank" is B.
"""

from __future__ import annotations

import random
import re
from decimal import Decimal

from langchain_gkt.texts.numbers import exact_number
from langchain_gkt.texts.options import exact_option

_PHRASE = "the answer is"
_LETTER = re.compile(r"The answer is ([A-Z])")
_MELTED = str.maketrans("", "", ", ")


def reference_number(
    text: str, gold: str | int | float | Decimal, *, question: str = "", seed: int = 0
) -> bool:
    """Score a number as the paper's code does.

    Args:
        text: The output, guidance included.
        gold: The right number, as `scoring.exact_number` reads it.
        question: The prompt, whose numbers and statements count too.
        seed: Seeds the draw if no digit is found, together with the text. The same text always
            scores alike.

    Raises:
        ValueError: If ``gold`` holds no number.
    """
    right = exact_number(gold)
    output = text.lower()
    if output.count(_PHRASE) > 1:
        runs, which = _digit_runs(output.split(_PHRASE)[1]), 0
    else:
        runs, which = _digit_runs((question.lower() + output).split(_PHRASE)[-1]), -1
    if not runs:
        return right == _draw(seed, text).randint(0, 100)
    return right == Decimal(runs[which])


def reference_option(text: str, gold: str, *, options: str = "ABCD", seed: int = 0) -> bool:
    """Score an option's letter as the paper's code does.

    Args:
        text: The output, guidance included.
        gold: The right letter: "E", "(E)" or "e".
        options: The letters that a missing answer is drawn from: "ABCD" for CommonsenseQA,
            "ABCDE" for AQuA.
        seed: Seeds that draw, together with the text.

    Raises:
        ValueError: If ``gold`` is no letter from A to E or there are no ``options``.
    """
    right = exact_option(gold)
    if not options.isalpha():
        raise ValueError(f"options must be letters, as 'ABCD' is, not {options!r}")
    stated = _LETTER.search(text)
    return right == (stated[1] if stated else _draw(seed, text).choice(options.upper()))


def _digit_runs(text: str) -> list[str]:
    return re.findall("[0-9]+", text.translate(_MELTED))


def _draw(seed: int, text: str) -> random.Random:
    # A text seed, unlike a hash of it, is the same in every process.
    return random.Random(f"{seed} {text}")
