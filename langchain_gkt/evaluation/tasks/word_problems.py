"""The word problems that the package ships: one family, with short worked answers.

One quantity goes through two to four changes. The answer first states a plan,
then works it out, so the beginning of an answer decides the rest:

    Q: Anna has 14 pens. Anna finds 6 more. The dog swallows 5. How many pens ...
    A: Plan: 14 plus 6, minus 5. 14 + 6 = 20. 20 - 5 = 15. The answer is 15.

The embedded models were trained on other problems of this family.
examples/demo_models/word_problems.py makes them, and made these.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeVar

T = TypeVar("T")

GUIDANCE_TOKENS = 18
"""Tokens of the embedded teacher that hold most plans, and little of the work."""


@dataclass(frozen=True)
class WordProblem:
    """One problem with its worked answer.

    Attributes:
        question: The problem as a user would put it.
        answer: The number asked for.
        solution: The whole worked answer. It begins with ``plan`` and ends with
            ``The answer is N.``
        rich: How many of the sentences use a phrase that the student has not learned.
    """

    question: str
    answer: int
    solution: str
    rich: int

    @property
    def plan(self) -> str:
        """First sentence of the worked answer: what to compute, without results."""
        return self.solution[: self.solution.index(".") + 1]


def sample(seed: int | None, count: int | None) -> list[WordProblem]:
    """Return some of the shipped problems. See `drawn`."""
    return drawn(_shipped(), seed, count)


def drawn(rows: Sequence[T], seed: int | None, count: int | None) -> list[T]:
    """Return some rows in their order, the same ones for the same arguments.

    Args:
        rows: The rows.
        seed: Seed of a draw. None for the first ones.
        count: Maximum number of rows. None for all of them.
    """
    if seed is None or count is None or count >= len(rows):
        return list(rows[:count])
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), count))]


def is_word_problem(question: str) -> bool:
    """Whether a question names a number, and no word that the shipped problems do not use."""
    words = _words(question)
    return bool(words) and bool(re.search(r"\d", question)) and words <= _known_words()


@cache
def _shipped() -> tuple[WordProblem, ...]:
    file = resources.files("langchain_gkt.evaluation.tasks") / "word_problems.jsonl"
    return tuple(WordProblem(**json.loads(line)) for line in file.read_text("utf-8").splitlines())


@cache
def _known_words() -> frozenset[str]:
    return frozenset().union(*(_words(problem.question) for problem in _shipped()))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d]+", text.lower()))
