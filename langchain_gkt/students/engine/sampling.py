"""Choosing the next token of every row of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.request import Request, Row

# Dividing by less overflows, and the draw is the likeliest token anyway.
_COLDEST = 1e-4


def make_generator(request: Request, device: torch.device) -> torch.Generator | None:
    """Return the request's own source of chance, or None for a greedy one."""
    if request.temperature <= _COLDEST:
        return None
    generator = torch.Generator(device=device)
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    return generator


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> list[int | Exception]:
    """Choose one token per row.

    Each row draws from its own generator, so that its neighbours have no say.

    Args:
        logits: Shape (rows, vocabulary).
        rows: What each row asks for.

    Returns:
        A token id for each row, or the exception that ends this row alone.
    """
    best = logits.argmax(dim=-1, keepdim=True)
    # A NaN wins every argmax, so looking at the winners is looking at all.
    sound = torch.isfinite(logits.gather(-1, best)).flatten().tolist()
    chosen: list[int | Exception] = list(best.flatten().tolist())
    for at, row in enumerate(rows):
        if not sound[at]:
            chosen[at] = StudentError(
                "the student's logits are not numbers; check its weights and dtype"
            )
        elif row.generator is not None or row.request.constraint is not None:
            try:
                chosen[at] = _choose_one(logits[at].float(), row)
            except Exception as error:  # noqa: BLE001  a constraint may raise anything
                chosen[at] = error
    return chosen


def _choose_one(logits: torch.Tensor, row: Row) -> int:
    if row.request.constraint is None:
        return _draw(logits, row)
    return row.request.constraint.choose(logits, lambda allowed: _draw(allowed, row))


def _draw(logits: torch.Tensor, row: Row) -> int:
    request = row.request
    if not torch.isfinite(logits).any():
        raise StudentError(
            "the constraint on the answer forbids every token the student has; the "
            "student's vocabulary cannot write what is asked for"
        )
    if row.generator is None:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / request.temperature, dim=-1)
    if request.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= request.top_p
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=row.generator))
