"""The first tokens of a student's own answer as named signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_gkt.students.protocol import FirstToken


def first_token_signals(tokens: Sequence[FirstToken]) -> dict[str, float]:
    """Return ``probability_1`` and so on, and ``entropy_1`` and so on where they are known."""
    signals = {f"probability_{n}": token.probability for n, token in enumerate(tokens, 1)}
    for number, token in enumerate(tokens, 1):
        if token.entropy is not None:
            signals[f"entropy_{number}"] = token.entropy
    return signals


def first_tokens_in(signals: Mapping[str, float], most: int | None = None) -> list[FirstToken]:
    """Return the first tokens that a question's signals describe, ``most`` of them or all."""
    tokens: list[FirstToken] = []
    while most is None or len(tokens) < most:
        number = len(tokens) + 1
        if (probability := signals.get(f"probability_{number}")) is None:
            break
        tokens.append(FirstToken(probability, signals.get(f"entropy_{number}")))
    return tokens
