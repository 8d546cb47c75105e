"""The modes of a call and the roles of its models; apart, because importing them costs nothing."""

from __future__ import annotations

from typing import Literal

Mode = str
"""The name of a strategy: ``guided`` for both models, ``teacher`` or ``student`` for a baseline,
or any other that is registered; see `langchain_gkt.chain.strategy`."""

Role = Literal["teacher", "student"]
"""Which of the two models a run is of; ``gkt_role`` in the metadata of its run."""
