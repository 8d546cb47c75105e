"""A synthetic family of grade-school word problems with short worked answers.

One quantity goes through two to four changes. The answer first states a plan,
then works it out, so the beginning of an answer decides the rest:

    Q: Anna has 14 pens. Anna finds 6 more. The dog swallows 5. How many pens ...
    A: Plan: 14 plus 6, minus 5. 14 + 6 = 20. 20 - 5 = 15. The answer is 15.

What makes a problem hard is its wording (*rich* phrases instead of *plain* ones),
numbers that play no part, and stories told from the end. Train and test problems are
disjoint by construction: a hash of what must be computed decides which side it is on.

    python examples/demo_models/word_problems.py

writes the test problems that the package ships as the task ``word_problems``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]
Wording = Literal["plain", "mixed"]

SHIPPED = (
    Path(__file__).parents[2] / "langchain_gkt" / "evaluation" / "tasks" / "word_problems.jsonl"
)
SHIPPED_SEED, SHIPPED_ROWS = 20271, 500
"""A seed that was not looked at while designing, and how many of its problems are shipped."""

MAX_VALUE = 99
"""No quantity in a problem exceeds this."""

RICH_SHARE = 0.35
"""Probability that a sentence of a *mixed* problem is told in a rich phrase."""

_WOMEN = "Anna Maya Rosa Lily Jane Kate Emma Nora Ruth Tina Zoe Iris".split()
_MEN = "Tom Leo Ben Max Sam Jack Paul Omar Luke Ivan Adam Carl".split()
_ITEMS = (
    "pens cups books stamps shells coins cards marbles cookies roses "
    "eggs pears balls toys buttons beads lemons plums"
).split()

# A phrase that fixes the operand (doubles, half) names it behind a bar.
_CHANGES: dict[str, dict[str, list[str]]] = {
    "+": {
        "plain": [
            "{He} finds {k} more.",
            "{He} buys {k} more.",
            "{He} gets {k} from {O}.",
            "{O} gives {him} {k}.",
            "{He} adds {k}.",
            "{He} wins {k}.",
            "{He} makes {k} new ones.",
            "Then {k} more {it} arrive.",
        ],
        "rich": [
            "{O} hands over {k} to {him}.",
            "{He} inherits {k}.",
            "A parcel brings {k}.",
            "{O} returns {k} to {him}.",
            "{k} forgotten ones turn up.",
            "{He} trades a scarf for {k} of them.",
            "{He} talks {O} out of {k}.",
            "{He} earns {k} for sweeping the yard.",
            "{O} owes {him} {k} and pays.",
            "{k} are left to {him} by {O}.",
        ],
    },
    "-": {
        "plain": [
            "{He} loses {k}.",
            "{He} sells {k}.",
            "{He} gives {k} to {O}.",
            "{O} gets {k} from {him}.",
            "{He} throws {k} away.",
            "{He} uses {k} up.",
            "{k} of them break.",
            "Then {k} {it} are stolen.",
        ],
        "rich": [
            "{O} talks {him} out of {k}.",
            "{k} slip through a hole.",
            "{He} donates {k}.",
            "The dog swallows {k}.",
            "{He} trades {k} for a scarf.",
            "{He} forgets {k} on the bus.",
            "{k} roll into the river.",
            "{He} owes {O} {k} and pays.",
            "A storm ruins {k}.",
            "{k} are left to {O} by {him}.",
        ],
    },
    "*": {
        "plain": [
            "{He} doubles them.|2",
            "{He} triples them.|3",
            "The number of {it} grows {k} times.",
            "Then {he} has {k} times as many.",
        ],
        "rich": [
            "A twin turns up for each of them.|2",
            "Each one is cut into {k} pieces.",
            "{O} swaps every one for {k} small ones.",
            "Every single one becomes {k} overnight.",
            "{He} copies the lot until there are {k} equal sets.",
        ],
    },
    "/": {
        "plain": [
            "{He} keeps only half of them.|2",
            "{He} keeps only a third of them.|3",
            "{He} splits them into {k} equal bags and keeps one bag.",
            "The number of {it} is divided by {k}.",
        ],
        "rich": [
            "Every second one melts.|2",
            "Only one in every {k} survives.",
            "{He} glues every {k} together into one.",
            "{O} leaves {him} one of {k} equal shares.",
            "{He} ties them up by {k} and counts the bundles.",
        ],
    },
}
_DISTRACTIONS = {
    "plain": [
        "{O} has {k} hats.",
        "{O} is {k} years old.",
        "The trip takes {k} hours.",
        "It costs {k} dollars.",
    ],
    "rich": [
        "{O} promises {him} {k} more but forgets.",
        "{He} nearly loses {k}.",
        "{He} dreams of {k} new ones.",
        "{O} begs for {k} in vain.",
        "{He} counts {k} clouds.",
    ],
}
_STARTS = [
    "{N} has {v} {it}.",
    "{N} starts with {v} {it}.",
    "There are {v} {it} on the table of {N}.",
    "In the drawer of {N} lie {v} {it}.",
]
_GROUPS = [
    "{N} has {v} boxes with {k} {it} in each.",
    "{N} collects {v} {it} a day for {k} days.",
    "There are {v} bags of {N}, each with {k} {it}.",
]
_ENDS = [
    "How many {it} does {N} have now?",
    "How many {it} are left with {N}?",
    "What is the number of {it} {N} ends up with?",
]
_BACK_STARTS = ["{N} has some {it}.", "{N} starts with a number of {it}."]
_BACK_ENDS = [
    "Now {N} has {v} {it}. How many did {he} have at first?",
    "That leaves {N} with {v} {it}. How many {it} were there in the beginning?",
]
_PLAN_WORD = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class WordProblem:
    """One problem with its worked answer.

    Attributes:
        question: The problem as a user would put it.
        plan: First sentence of the worked answer: what to compute, without results.
        solution: The whole worked answer. It begins with ``plan`` and ends with
            ``The answer is N.``
        answer: The number asked for.
        family: ``story`` (told forwards), ``back`` (the start is asked for) or
            ``drill`` (the plan itself is the question; training only).
        key: What must be computed, as text. Decides the split.
        rich: How many of the sentences use a rich phrase.
    """

    question: str
    plan: str
    solution: str
    answer: int
    family: str
    key: str
    rich: int


def split_of(key: str) -> Split:
    """Say which split a problem belongs to.

    Args:
        key: `WordProblem.key`.

    Returns:
        ``test`` for about one key in ten, chosen by a hash; else ``train``.
    """
    return "test" if int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0 else "train"


def generate(
    seed: int,
    split: Split,
    *,
    wording: Wording = "mixed",
    drills: float = 0.0,
) -> Iterator[WordProblem]:
    """Yield problems without end, the same ones for the same arguments.

    Args:
        seed: Seed of the stream.
        split: Which side of the train/test division to draw from.
        wording: ``mixed`` tells about a third of the sentences in rich phrases, ``plain``
            none of them.
        drills: Share of problems whose question is the plan itself, in [0, 1].

    Yields:
        Problems of the asked split. Drills are split like all others.

    Raises:
        ValueError: If ``split`` or ``wording`` is unknown.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    if wording not in ("plain", "mixed"):
        raise ValueError(f"wording must be 'plain' or 'mixed', not {wording!r}")
    rng = random.Random(f"{seed}/{split}/{wording}/{drills}")
    while True:
        problem = _draw(rng, RICH_SHARE if wording == "mixed" else 0.0, drills)
        if problem is not None and split_of(problem.key) == split:
            yield problem


def sample(seed: int, count: int, *, split: Split = "test") -> list[WordProblem]:
    """Return the first problems of a stream, without repeated questions.

    Args:
        seed: Seed of the stream.
        count: How many problems to return.
        split: Which side of the train/test division to draw from.

    Returns:
        ``count`` different problems.
    """
    seen: dict[str, WordProblem] = {}
    for problem in generate(seed, split):
        if len(seen) >= count:
            break
        seen.setdefault(problem.question, problem)
    return list(seen.values())


def _apply(value: int, op: str, operand: int) -> int | None:
    """Compute one step, or None where the result leaves the problems' range."""
    if op == "/":
        if value % operand:
            return None
        result = value // operand
    else:
        result = {"+": value + operand, "-": value - operand, "*": value * operand}[op]
    return result if 2 <= result <= MAX_VALUE else None


def _draw(rng: random.Random, rich_share: float, drills: float) -> WordProblem | None:
    """Draw one problem; None where the drawn numbers do not work out."""
    family = "drill" if rng.random() < drills else rng.choices(("story", "back"), (3, 1))[0]
    name, other = rng.sample(_WOMEN + _MEN, 2)
    woman = name in _WOMEN
    words = {
        "N": name,
        "O": other,
        "He": "She" if woman else "He",
        "he": "she" if woman else "he",
        "him": "her" if woman else "him",
        "it": rng.choice(_ITEMS),
    }
    start = value = rng.randint(3, 60)
    count = rng.choice((2, 3)) if family == "back" else rng.choices((2, 3, 4), (2, 5, 3))[0]
    program: list[tuple[str, int, str]] = []
    rich = 0

    def phrase(kinds: dict[str, list[str]]) -> tuple[str, int]:
        is_rich = rng.random() < rich_share
        return rng.choice(kinds["rich" if is_rich else "plain"]), int(is_rich)

    while len(program) < count:
        op = rng.choices("+-*/", (3, 3, 2, 2))[0]
        grouped = not program and family == "story" and op == "*" and rng.random() < 0.5
        text, is_rich = (rng.choice(_GROUPS), 0) if grouped else phrase(_CHANGES[op])
        text, _, fixed = text.partition("|")
        operand = int(fixed) if fixed else rng.randint(2, 30 if op in "+-" else 9)
        result = _apply(value, op, operand)
        if result is not None:  # some addition or subtraction always fits
            program.append((op, operand, text))
            rich += is_rich
            value = result

    sentences = [text.format(k=operand, v=start, **words) for _, operand, text in program]
    distraction = None
    if family != "drill" and rng.random() < 0.4:
        text, is_rich = phrase(_DISTRACTIONS)
        distraction = rng.randint(2, 30)
        rich += is_rich
        # Never in front of a first sentence that introduces the quantity.
        position = rng.randint(1, len(sentences))
        sentences.insert(position, text.format(k=distraction, **words))
    steps = [(op, operand) for op, operand, _ in program]
    if family == "back":
        steps = [(_INVERSE[op], operand) for op, operand in reversed(steps)]
        first, answer = value, start
        opening, ending = rng.choice(_BACK_STARTS), rng.choice(_BACK_ENDS)
    else:
        first, answer = start, value
        opening, ending = rng.choice(_STARTS), rng.choice(_ENDS)
    # An answer that is among the given numbers would look leaked when it is not.
    if answer in {first, distraction, *(operand for _, operand in steps)}:
        return None
    plan = f"{first} " + ", ".join(f"{_PLAN_WORD[op]} {operand}" for op, operand in steps)
    if family == "drill":
        question, rich = f"What is {plan}?", 0
    else:
        if program[0][2] in _GROUPS:
            opening = ""  # the first sentence introduces the quantity itself
        told = [opening.format(v=first, **words), *sentences, ending.format(v=first, **words)]
        question = " ".join(sentence for sentence in told if sentence)
    work, running = [], first
    for op, operand in steps:
        result = _apply(running, op, operand)
        if result is None:  # only a story told from its end can get here
            return None
        work.append(f"{running} {op} {operand} = {result}.")
        running = result
    plan = f"Plan: {plan}."
    return WordProblem(
        question=question,
        plan=plan,
        solution=" ".join((plan, *work, f"The answer is {answer}.")),
        answer=answer,
        family=family,
        key=f"{first}{''.join(f'{op}{operand}' for op, operand in steps)}",
        rich=rich,
    )


def write(file: Path) -> None:
    """Write the problems that the package ships, as JSON lines."""
    rows = (
        {"question": p.question, "answer": p.answer, "solution": p.solution, "rich": p.rich}
        for p in sample(SHIPPED_SEED, SHIPPED_ROWS)
    )
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the file to write")
    write(parser.parse_args().out)
