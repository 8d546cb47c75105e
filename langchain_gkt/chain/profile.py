"""The profile of a pair, on which agents and summarisation rely."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.language_models import ModelProfile

from langchain_gkt.chain.strategy import Strategy
from langchain_gkt.teachers.wrappers import is_configurable, models_of

_LIMITS = ("max_input_tokens", "max_output_tokens")


def pair_profile(
    teacher: Any, student: Any, strategy: Strategy, max_tokens: int | None
) -> ModelProfile:
    """Return the limits and abilities that the models have together, as far as they are known."""
    teachers: list[dict[str, Any]] = []
    if not is_configurable(teacher):  # only a call knows which model it is
        teachers = [dict(model.profile or {}) for model in models_of(teacher)]
    answering = teachers if strategy.asks_teacher else []
    if strategy.asks_student:
        answering = [*answering, dict(student.profile or {})]
    fields: dict[str, Any] = {"text_inputs": True, "text_outputs": True, "image_inputs": False}
    for name in _LIMITS:
        known = [profile[name] for profile in answering if profile.get(name)]
        if name == "max_output_tokens" and max_tokens is not None:
            known.append(max_tokens)
        if known:
            fields[name] = min(known)
    # Tool calls are the teacher's. The student makes them only in mode ``student``.
    callers = teachers if strategy.asks_teacher else answering
    for name in ("tool_calling", "tool_choice"):
        if callers and all(name in profile for profile in callers):
            fields[name] = all(profile[name] for profile in callers)
    # An agent would ask for an object in every turn, and then could not call its tools.
    fields["structured_output"] = False
    return cast(ModelProfile, fields)
