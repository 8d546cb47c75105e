"""Choosing the next token of every row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.failures import FORBIDDEN
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import Request
from langchain_gkt.students.protocol import FirstToken

# Dividing by less overflows, and the draw is the likeliest token anyway.
_MIN_TEMPERATURE = 1e-4


@dataclass
class TokenProbabilityRecorder:
    """A constraint that forbids nothing and records how likely every chosen token was."""

    tokens: list[FirstToken] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    done = False

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        """Let the request's sampler choose. See `Constraint.choose`."""
        token = pick(logits)
        shares = torch.softmax(logits, dim=-1)
        entropy = torch.special.entr(shares).sum()
        self.record(token, float(shares[token]), entropy=float(entropy))
        return token

    def record(self, token: int, probability: float, **known: Any) -> None:
        """Append a token by its id, with the other fields of a `FirstToken` that are known."""
        self.ids.append(token)
        self.tokens.append(FirstToken(probability, **known))


def make_generator(request: Request, device: torch.device) -> torch.Generator | None:
    """Return the request's own source of randomness, or None for greedy decoding."""
    if request.temperature <= _MIN_TEMPERATURE:
        return None
    generator = torch.Generator(device=device)
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    return generator


def sample(logits: torch.Tensor, states: Sequence[RequestState]) -> list[int | BaseException]:
    """Choose one token per request, from logits of shape (requests, vocabulary).

    Each request draws from its own generator, so its neighbours do not change its tokens.

    Returns:
        A token id for each request, or the exception that ends this request alone.
    """
    best = logits.argmax(dim=-1, keepdim=True)
    # A NaN wins every argmax, so checking the winners checks all.
    finite = torch.isfinite(logits.gather(-1, best)).flatten().tolist()
    chosen: list[int | BaseException] = list(best.flatten().tolist())
    for row, state in enumerate(states):
        if not finite[row]:
            chosen[row] = StudentError(
                "the student's logits are not numbers; check its weights and dtype"
            )
        elif (
            state.generator is not None
            or state.request.constraint is not None
            or state.healing is not None
        ):
            try:
                chosen[row] = _sample_one(logits[row].float(), state)
            except BaseException as error:  # noqa: BLE001  a Rust panic is no Exception
                chosen[row] = error
    return chosen


def _sample_one(logits: torch.Tensor, state: RequestState) -> int:
    if state.healing is not None:
        logits = state.healing.hold(logits)
    if state.request.constraint is None:
        return _draw(logits, state)
    return state.request.constraint.choose(logits, lambda allowed: _draw(allowed, state))


def _draw(logits: torch.Tensor, state: RequestState) -> int:
    request = state.request
    if not torch.isfinite(logits).any():
        raise StudentError(FORBIDDEN)
    if state.generator is None:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / request.temperature, dim=-1)
    if request.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= request.top_p
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=state.generator))
