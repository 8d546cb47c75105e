"""The fields of a chain and the arguments of a call: their bounds, and which fit together."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    model_validator,
)

from langchain_gkt.chain.callbacks.handlers import with_budget
from langchain_gkt.chain.reliability.breaker import CircuitBreaker
from langchain_gkt.chain.reliability.deadline import check_timeout
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.chain.tool_policy import check_tool_policy
from langchain_gkt.costs.budget import Budget
from langchain_gkt.errors import refuse_unknown, whole_number
from langchain_gkt.guidance import GuidancePolicy, as_policy
from langchain_gkt.metadata import Mode
from langchain_gkt.prompts.base import TeacherPromptLike, check_teacher_prompt
from langchain_gkt.structured_output.schema import binding, schema_in
from langchain_gkt.students.batching import InterruptibleChatModel
from langchain_gkt.students.conversion import STUDENT_VARIABLE, StudentLike, as_student
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


def check_schema(schema: dict[str, Any]) -> None:
    """Refuse a schema that cannot be enforced, before the teacher is paid."""
    from langchain_gkt.structured_output.grammar import json_grammar  # needs an extra

    try:
        json_grammar(schema)
    except ValueError as error:
        raise ValueError(f"response_format: {error}") from None


def can_be_enforced(schema: dict[str, Any] | type) -> bool:
    """Whether an answer can be held to a schema."""
    try:
        check_schema(schema_in(binding(schema, "json_schema")["response_format"]))
    except ValueError:
        return False
    return True


def check_samples(value: Any) -> int:
    """Return a number of samples. Refuse another value."""
    return whole_number("samples", value, least=1, meaning="one answer, no vote")


class ChainFields(InterruptibleChatModel):
    """The fields of `GuidedKnowledgeTransferChain`, checked together."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    teacher: SkipValidation[Runnable[Any, Any]] = Field(repr=False)
    """Any LangChain chat model, or one wrapped by bind, with_retry or with_fallbacks."""
    student: SkipValidation[StudentLike]
    """Any input of `as_student`."""
    guidance_tokens: Annotated[int, AfterValidator(check_guidance_tokens)] = 40
    """Maximum completion tokens of the teacher. 0 asks no teacher."""
    guidance: GuidancePolicy | None = None
    """Where to cut guidance and when to ask for it, or a JSON file. None: whole words, always."""
    redact: SkipValidation[TeacherPromptLike] = None
    """A teacher prompt such as `Redact` that is applied last, in every mode and every call."""
    teacher_prompt: SkipValidation[TeacherPromptLike] = None
    """The part of the conversation that the teacher sees. None for all, or the policy's."""
    mode: Annotated[Mode, BeforeValidator(lambda mode: strategy_of(mode).name)] = "guided"
    """How to make an answer. ``teacher`` (on the whole conversation) and ``student`` are the
    single-model baselines. See `langchain_gkt.chain.strategy` for others.
    """
    samples: Annotated[int, BeforeValidator(check_samples)] = 1
    """How often the student writes its part. With 2 or more the most common answer is shown."""
    answer_of: Annotated[Any, BeforeValidator(check_answer_of)] = "text"
    """When two answers are equal: by ``number``, ``option``, ``json``, ``text``, or a function."""
    max_tokens: Annotated[int | None, AfterValidator(check_max_tokens)] = None
    """Maximum tokens of a whole answer, guidance included. None for the models' own limits."""
    temperature: Annotated[float | None, AfterValidator(check_temperature)] = None
    """Sampling temperature of both models. None for their own."""
    stop: list[str] | None = None
    """Strings that end an answer, unless a call names its own."""
    student_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Fields of `HuggingFaceStudent`, for a student that is not loaded yet."""
    on_teacher_error: Literal["raise", "student"] = "raise"
    """Whether a failing teacher fails the call or leaves it to the student."""
    on_student_error: Literal["raise", "teacher"] = "raise"
    """Whether a student that fails, or cannot read the prompt, fails the call or leaves the whole
    turn to the teacher."""
    on_refusal: Literal["show", "student"] = "show"
    """Whether the user sees a teacher's refusal, or the student answers instead."""
    circuit_breaker: CircuitBreaker | None = None
    """Stops calling a teacher that keeps failing, for a while. Copies of the chain share it."""
    timeout: Annotated[float | None, BeforeValidator(check_timeout)] = None
    """Maximum seconds of a whole call, both models and their queues. None for no limit."""
    teacher_limit_param: str | None = None
    """The teacher's name for its completion limit, if it is not a usual one."""
    teacher_prefill: bool | None = None
    """False if the teacher refuses a conversation ending in an AIMessage. None: by model."""
    budget: SkipValidation[Budget | None] = Field(default=None, repr=False)
    """A `Budget` of this chain's own, or None. Copies of the chain share it."""
    streaming: bool | None = None
    """True makes ``invoke`` pass tokens to listening handlers. False keeps ``stream`` from it."""

    @property
    def loaded_student(self) -> BaseChatModel:
        """The student, which `as_student` has made a chat model."""
        return cast(BaseChatModel, self.student)

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Any) -> Any:
        """Refuse arguments that do not fit together, and load the student."""
        refuse_unknown(values, cls.model_fields, cls.__name__)
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
        if policy is not None:
            if (gate := policy.active_gate) is not None:
                gate.require(student_of(loaded))
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
