"""Sets the threshold of any gate on your own questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from langchain_core.language_models import BaseChatModel, LanguageModelInput

from langchain_gkt._langchain_compat import to_messages
from langchain_gkt.errors import share_number
from langchain_gkt.gates.base import Gate, ThresholdGate
from langchain_gkt.students.protocol import student_of

_Calibrated = TypeVar("_Calibrated", bound=Gate)


def calibrate(
    gate: _Calibrated,
    student: BaseChatModel,
    questions: Sequence[LanguageModelInput],
    *,
    share: float,
) -> _Calibrated:
    """Make a gate ask the teacher for a share of the questions, based on examples.

    The student processes each question. No right answer is needed and no teacher is asked.

    Args:
        gate: A gate with a threshold.
        student: The student, such as a chain's ``student``.
        questions: Questions as the chain will get them, exemplars included.
        share: From 0 to 1, such as 0.3 to ask the teacher in 30% of the questions.

    Returns:
        The gate with another threshold.

    Raises:
        ValueError: If the share makes no sense, the student does not report what the gate
            needs, or there are too few questions.
        TypeError: If the gate has no threshold.
    """
    share_number("share", share)
    if not isinstance(gate, ThresholdGate):
        raise TypeError(
            f"calibrate() sets a threshold, and a {type(gate).__name__} has none; make it a "
            "ThresholdGate"
        )
    asked = student_of(student)
    gate.require(asked)
    measure = partial(gate.measure, asked)
    with ThreadPoolExecutor() as pool:  # the student batches them
        signals = pool.map(measure, [to_messages(student, question) for question in questions])
        scores = [gate.score(measured) for measured in signals]
    return gate.asking_above(threshold_for(scores, share))


def threshold_for(scores: Sequence[float], share: float) -> float:
    """Return the score that a share of the questions exceeds. Refuse equal scores."""
    share_number("share", share)
    if not scores:
        raise ValueError("questions are missing: a share is taken of some; give at least one")
    ordered, count = sorted(scores, reverse=True), round(share * len(scores))
    if count == len(ordered):
        return math.nextafter(ordered[-1], -math.inf)
    if count == 0:
        return ordered[0]
    if ordered[0] == ordered[-1]:
        raise ValueError(
            f"the gate scores all {len(ordered)} questions alike, so it cannot pick a share "
            "of them; give share=0 or share=1, or measure more of each question"
        )
    return (ordered[count - 1] + ordered[count]) / 2
