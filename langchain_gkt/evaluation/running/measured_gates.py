"""Gates in a sweep: their signals, and the student answers that measuring them took."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.callbacks.handlers import child_config
from langchain_gkt.chain.steps.student_step import CalledStudent
from langchain_gkt.evaluation.running.records import Answer, part_of
from langchain_gkt.evaluation.running.reply_recorder import ReplyRecorder
from langchain_gkt.gates import Gate, ThresholdGate, gate_from
from langchain_gkt.gates.base import Signals
from langchain_gkt.students.protocol import student_of


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


async def measure(
    gate: Gate,
    chain: GuidedKnowledgeTransferChain,
    messages: list[BaseMessage],
    *,
    recorder: ReplyRecorder,
    alone: Answer,
    judge: Callable[[str], dict[str, bool | None]],
) -> tuple[dict[str, float], Answer | None]:
    """Measure a gate's signals as a chain would.

    Args:
        gate: The gate.
        chain: Its student is asked, within its limits.
        messages: The question.
        recorder: Counts what the student's answers cost.
        alone: The student's answer without a gate.
        judge: The task's metrics.

    Returns:
        The signals, and the answer that the gate shows if it asks no teacher. Its student part is
        all that measuring took. None if the gate has the student answer as without it.
    """
    metadata = {"gkt_call_id": str(uuid.uuid4()), "gkt_mode": "student", "gkt_compared": False}
    config = child_config(None, "student", own_callbacks=[recorder], metadata=metadata)
    limits = {"max_tokens": chain.max_tokens, "stop": chain.stop}
    limits = {name: value for name, value in limits.items() if value is not None}
    student = CalledStudent(student_of(chain.student), config, limits)
    started, begun = time.time(), time.perf_counter()
    signals = await gate.ameasure(student, messages)
    if gate.shown_as is None:
        return dict(signals), None
    winner: AIMessage | None = signals.winner if isinstance(signals, Signals) else None
    text = alone.text if winner is None else str(winner.text)
    shown = replace(
        alone,
        mode=gate.shown_as,
        text=text,
        verdicts=judge(text),
        student=part_of(recorder.calls, "student"),
        seconds=time.perf_counter() - begun,
        first_token_seconds=None,
        started=started,
        finish_reason=(winner.response_metadata if winner else {}).get("finish_reason"),
        fallback=None if winner else "no sample could be read",
        signals=dict(signals),
    )
    return dict(signals), shown
