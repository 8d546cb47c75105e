"""Predictors written by hand, for calls whose outcome is known."""

from __future__ import annotations

from typing import Any

from langchain_gkt.gates.learned import VERSION, Expectation, Predictor


def made_predictor(odds: tuple[float, float, float] = (0.0, 0.0, 0.0), **fields: Any) -> Predictor:
    """Return one that expects the same of all questions.

    Args:
        odds: Log odds of a right answer with none, some and all of the teacher's answer.
        **fields: Fields of the predictor to set or replace.
    """

    def expect(bias: float, cost: float) -> Expectation:
        return Expectation(weights=(0.0,), bias=bias, cost=cost)

    given: dict[str, Any] = {
        "version": VERSION,
        "features": ("numbers",),
        "probe_tokens": 0,
        "none": expect(odds[0], 0.0),
        "some": expect(odds[1], 1.0),
        "all": expect(odds[2], 2.0),
        "price_per_point": 1.0,
    }
    return Predictor(**{**given, **fields})


def by_confidence(tokens: int = 8, feature: str = "log_confidence", sign: float = 1.0) -> Predictor:
    """Return one that expects nothing of an unsure student, and asks for guidance then.

    Args:
        tokens: How many first tokens it looks at.
        feature: By which it tells how sure the student is.
        sign: 1 if a sure student has more of the feature, -1 if less.
    """
    sure = Expectation(weights=(20.0 * sign,), bias=10.0, cost=0.0)
    helped = [Expectation(weights=(0.0,), bias=4.0, cost=cost) for cost in (1.0, 2.0)]
    return made_predictor(
        features=(feature,), probe_tokens=tokens, none=sure, some=helped[0], all=helped[1]
    )
