"""Verdicts: the teacher's instruction about a student's draft, and how to read the reply."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from langchain_gkt.prompts.hints import option_hint
from langchain_gkt.texts.options import extract_option

_ACCEPTED = re.compile(r"\W*(?:ok(?:ay)?|right|correct|yes)\b", re.IGNORECASE)
_CORRECTED = re.compile(r"\W*(?:step\s*)?(?P<number>\d+)\s*[:.)]\s*(?P<text>\S.*)", re.I | re.S)
_SENTENCE_END = re.compile(r"(?<=[.!?]\s)")


class VerdictFormat(NamedTuple):
    """How to ask for a verdict and read it.

    Attributes:
        instruction: The teacher's instruction, which follows the draft.
        correct: Takes a verdict that is no word of consent and the draft. Returns the beginning of
            a better answer, or the draft if the verdict confirms it, or None if it says neither.
    """

    instruction: str
    correct: Callable[[str, str], str | None]

    def revise(self, verdict: str, draft: str) -> str | None:
        """Return what becomes of a draft: itself, the beginning of a better answer, or None."""
        return draft if _ACCEPTED.match(verdict) else self.correct(verdict, draft)


def numbered(draft: str) -> str:
    """Return a draft with a number before each step, for the teacher to point at."""
    return "\n".join(f"{n}. {step.strip()}" for n, step in enumerate(_steps(draft), 1))


def _steps(text: str) -> list[str]:
    """Split a draft into lines, or into sentences if it has one line. Joined they are the text."""
    steps: list[str] = []
    for line in text.splitlines(keepends=True):
        if steps and not line.strip():
            steps[-1] += line
        else:
            steps.append(line)
    return steps if len(steps) > 1 else _SENTENCE_END.split(text)


def _correct_step(verdict: str, draft: str) -> str | None:
    corrected, steps = _CORRECTED.match(verdict), _steps(draft)
    number = int(corrected["number"]) if corrected else 0
    if corrected is None or not 1 <= number <= len(steps):
        return None
    return f"{''.join(steps[: number - 1])}{corrected['text']}"


def _correct_option(verdict: str, draft: str) -> str | None:
    letter = extract_option(verdict)
    if letter is None:
        return None
    return draft if letter == extract_option(draft) else option_hint(verdict)


def _correct_either(verdict: str, draft: str) -> str | None:
    step = _correct_step(verdict, draft)
    # A letter corrects only a draft that picks an option.
    return _correct_option(verdict, draft) if step is None and extract_option(draft) else step


_FORMATS = {
    "steps": VerdictFormat(
        "Check the answer above, whose steps are numbered. If all steps and the result are right, "
        "reply with OK and nothing else. If not, reply with the number of the first wrong step, a "
        "colon, and that step put right, such as 3: 12 * 2 = 24. Do not write the steps after it.",
        _correct_step,
    ),
    "option": VerdictFormat(
        "Check which option the answer above picks. If it is the right one, reply with OK and "
        "nothing else. If not, reply with the letter of the right option, such as (C), and "
        "nothing else.",
        _correct_option,
    ),
}


def verdict_format(name: str) -> VerdictFormat:
    """Return a ready-made format, or one with the user's own words that is read as either."""
    return _FORMATS.get(name) or VerdictFormat(name, _correct_either)


def check_verdict(value: Any) -> str:
    """Return a verdict format's name, or an instruction of the user's own. Refuse another value."""
    if not isinstance(value, str) or (value not in _FORMATS and len(value.split()) < 2):
        known = ", ".join(map(repr, _FORMATS))
        raise ValueError(
            f"GuidancePolicy.verdict must be {known} or an instruction of your own, not {value!r}"
        )
    return value
