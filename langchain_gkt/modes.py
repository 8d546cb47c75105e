"""Words that the whole package shares: modes, roles and amounts. Importing them costs nothing."""

from __future__ import annotations

from typing import Literal

Mode = str
"""The name of a strategy: ``guided`` for both models, ``teacher`` or ``student`` for a baseline,
or any other that is registered. See `langchain_gkt.chain.strategy`."""

Role = Literal["teacher", "student"]
"""The model of a run: ``gkt_role`` in the run's metadata."""

Amount = Literal["none", "some", "all"]
"""How much the teacher writes: nothing, the policy's ``tokens``, or the whole answer."""

AMOUNTS: tuple[Amount, ...] = ("none", "some", "all")
