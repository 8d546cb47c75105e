"""The modes of a call and the roles of its models; apart, because importing them costs nothing."""

from __future__ import annotations

from typing import Literal

Mode = Literal["guided", "teacher", "student"]
"""Which models answer: both, or one of the two baselines."""

Role = Literal["teacher", "student"]
"""Which of the two models a run is of; ``gkt_role`` in the metadata of its run."""
