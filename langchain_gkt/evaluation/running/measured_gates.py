"""Gates in a sweep: which may be measured together, and how a run's settings name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_gkt.gates import Gate, ThresholdGate, gate_from


def refuse_alike(gates: Sequence[Gate]) -> None:
    """Refuse two gates that have the student answer and use the same signal names."""
    kinds = Counter(gate.kind for gate in gates if gate.shown_as is not None)
    if twice := [kind for kind, count in kinds.items() if count > 1]:
        raise ValueError(
            f"gates holds {kinds[twice[0]]} gates of the kind {twice[0]!r}, whose signals have the "
            "same names; sweep with one of them, and with the other into another folder"
        )


def described(gate: Gate) -> Any:
    """Describe what a gate's signals depend on, in plain values for the settings.

    That is its kind. For a gate that has the student answer, it is all but its threshold.
    """
    if gate.shown_as is None:
        return gate.kind
    if isinstance(gate, ThresholdGate):
        gate = gate.asking_above(1.0)  # the same for every threshold
    fields: Any = gate
    if callable(getattr(gate, "answer_of", None)):  # no file can hold it
        gate = replace(fields, answer_of=None)
    return gate.to_dict()


def measured(settings: Mapping[str, Any]) -> tuple[ThresholdGate, ...]:
    """Return the `described` gates that have the student answer, if their module is imported."""
    gates = [gate_from(kept) for kept in settings.get("gates", ()) if isinstance(kept, Mapping)]
    return tuple(gate for gate in gates if isinstance(gate, ThresholdGate))
