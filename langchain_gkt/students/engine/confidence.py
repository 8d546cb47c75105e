"""How likely a student's own first tokens are: what its confidence is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass
class Probe:
    """A constraint that forbids nothing, and notes how likely every chosen token was.

    Attributes:
        probabilities: One for each token chosen, between 0 and 1.
    """

    probabilities: list[float] = field(default_factory=list)
    done = False

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        """Let the row's sampler choose.

        Args:
            logits: Float32 logits of the next token, shape (vocabulary,).
            pick: The row's sampler.

        Returns:
            The token's id.
        """
        token = pick(logits)
        self.probabilities.append(float(torch.softmax(logits, dim=-1)[token]))
        return token
