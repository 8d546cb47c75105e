"""The fields of a chain and the arguments of a call: their bounds, and which fit together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Protocol

from langchain_core.callbacks import Callbacks
from pydantic import AfterValidator, BeforeValidator

from langchain_gkt.chain.callbacks.handlers import with_budget
from langchain_gkt.chain.reliability.breaker import CircuitBreaker
from langchain_gkt.chain.reliability.deadline import check_timeout
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.chain.tool_policy import check_tool_policy
from langchain_gkt.errors import refuse_unknown, whole_number
from langchain_gkt.guidance import GuidancePolicy, as_policy
from langchain_gkt.metadata import Mode
from langchain_gkt.prompts.base import check_teacher_prompt
from langchain_gkt.students.conversion import STUDENT_VARIABLE, as_student
from langchain_gkt.students.protocol import student_of
from langchain_gkt.students.voting import check_answer_of
from langchain_gkt.teachers.wrappers import is_configurable, models_of

CALL_FIELDS = (
    "guidance_tokens",
    "guidance",
    "mode",
    "max_tokens",
    "temperature",
    "samples",
    "answer_of",
    "teacher_prompt",
    "timeout",
)
TOOL_ARGUMENTS = ("tool_choice", "parallel_tool_calls", "strict")
INTERNAL_ARGUMENTS = ("tool_arguments", "marked_tools", "hide_child_runs")  # set by bind_tools
CALL_ARGUMENTS = (*CALL_FIELDS, "model", "tools", *TOOL_ARGUMENTS, "response_format")
"""Arguments of a call, as users write them."""


# --- bounds: the same for fields and for call-time arguments ---


def check_guidance_tokens(value: Any) -> int:
    """Return a number of guidance tokens. Refuse another value."""
    return whole_number("guidance_tokens", value, least=0, meaning="student only")


def check_max_tokens(value: Any) -> int | None:
    """Return a limit of tokens, or None. Refuse another value."""
    return None if value is None else whole_number("max_tokens", value, least=1)


def check_temperature(value: Any) -> float | None:
    """Return a temperature, or None. Refuse another value."""
    if value is None or (isinstance(value, int | float) and value >= 0):
        return value
    raise ValueError(f"temperature must be a number, 0 or more, not {value!r}")


def _check_mode(value: Any) -> Mode:
    return strategy_of(value).name


def check_schema(schema: dict[str, Any], *, asks_teacher: bool) -> None:
    """Refuse a schema that cannot be enforced, before the teacher is paid."""
    if not asks_teacher:  # a constrained student checks it by itself
        return
    from langchain_gkt.structured_output.grammar import json_grammar  # needs an extra

    try:
        json_grammar(schema)
    except ValueError as error:
        raise ValueError(f"response_format: {error}") from None


def check_samples(value: Any) -> int:
    """Return a number of samples. Refuse another value."""
    return whole_number("samples", value, least=1, meaning="one answer, no vote")


Samples = Annotated[int, BeforeValidator(check_samples)]
AnswerForms = Annotated[Any, BeforeValidator(check_answer_of)]
GuidanceTokens = Annotated[int, AfterValidator(check_guidance_tokens)]
MaxTokens = Annotated[int | None, AfterValidator(check_max_tokens)]
Temperature = Annotated[float | None, AfterValidator(check_temperature)]
Timeout = Annotated[float | None, BeforeValidator(check_timeout)]
CheckedMode = Annotated[Mode, BeforeValidator(_check_mode)]


def checked_fields(values: dict[str, Any], known: Iterable[str], owner: str) -> dict[str, Any]:
    """Check arguments of a chain's constructor together, and load its student.

    Args:
        values: The arguments.
        known: Names of the chain's fields.
        owner: The chain's class, for messages.

    Returns:
        The values of the fields.

    Raises:
        TypeError: If an argument is unknown, or teacher or student are of no known kind.
        ValueError: If there is no student, or arguments do not fit together.
    """
    refuse_unknown(values, known, owner)
    student = values.get("student", os.environ.get(STUDENT_VARIABLE))
    if student is None:
        raise ValueError(
            "student is missing: give a folder, a hub id or a loaded model, or set the "
            f"environment variable {STUDENT_VARIABLE}"
        )
    if "teacher" in values and not is_configurable(values["teacher"]):
        list(models_of(values["teacher"]))  # refuses what is not a chat model
    check_teacher_prompt(values.get("teacher_prompt"))
    check_teacher_prompt(values.get("redact"), name="redact")
    loaded = as_student(student, **(values.get("student_kwargs") or {}))
    policy = as_policy(values.get("guidance"))
    values = {**values, "student": loaded, "student_kwargs": {}, "guidance": policy}
    if policy is not None and policy.active_gate is not None:
        policy.active_gate.require(student_of(loaded))
    if policy is not None:
        check_tool_policy(policy, student_of(loaded))
    if policy is not None and policy.tokens is not None:
        tokens = values.get("guidance_tokens")
        if tokens not in (None, policy.tokens):
            raise ValueError(
                f"guidance_tokens={tokens} and guidance.tokens={policy.tokens} disagree; "
                "give one of them"
            )
        # One place for the number, so that configurable_fields can change it.
        values["guidance_tokens"] = policy.tokens
        policy = values["guidance"] = replace(policy, tokens=None)
    if policy is not None and policy.teacher_prompt is not None:
        prompt = values.get("teacher_prompt")
        if prompt is not None and prompt != policy.teacher_prompt:
            raise ValueError(
                "teacher_prompt and guidance.teacher_prompt disagree; give one of them"
            )
        values["teacher_prompt"] = policy.teacher_prompt
        values["guidance"] = replace(policy, teacher_prompt=None)
    if (budget := values.get("budget")) is not None:
        values["callbacks"] = with_budget(values.get("callbacks"), budget)
    return values


class ChainFields(Protocol):
    """The fields of a chain that a call depends on. See `GuidedKnowledgeTransferChain`."""

    teacher: Any
    student: Any
    guidance_tokens: int
    guidance: GuidancePolicy | None
    mode: Mode
    teacher_prompt: Any
    redact: Any
    max_tokens: int | None
    temperature: float | None
    samples: int
    answer_of: Any
    stop: list[str] | None
    on_teacher_error: Any
    on_student_error: Any
    teacher_limit_param: str | None
    teacher_prefill: bool | None
    timeout: float | None
    on_refusal: Any
    circuit_breaker: CircuitBreaker | None
    callbacks: Callbacks
