"""The settings of one call: a chain's fields and the arguments of the call, checked."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_gkt.chain.callbacks.handlers import child_config, hides_child_runs
from langchain_gkt.chain.fields import (
    CALL_ARGUMENTS,
    CALL_FIELDS,
    INTERNAL_ARGUMENTS,
    TOOL_ARGUMENTS,
    ChainFields,
    check_guidance_tokens,
    check_max_tokens,
    check_samples,
    check_schema,
    check_temperature,
)
from langchain_gkt.chain.reliability.breaker import CircuitBreaker
from langchain_gkt.chain.reliability.deadline import Deadline, check_timeout
from langchain_gkt.chain.strategy import Strategy, strategy_of
from langchain_gkt.chain.tool_policy import check_tool_policy, reserving
from langchain_gkt.errors import refuse_unknown
from langchain_gkt.gates import AgreementGate, Gate
from langchain_gkt.guidance import GuidancePolicy, as_policy
from langchain_gkt.metadata import Mode, Role
from langchain_gkt.prompts.base import TeacherPromptSequence, check_teacher_prompt
from langchain_gkt.structured_output.schema import schema_in
from langchain_gkt.structured_output.tools import in_openai_form, required_tool
from langchain_gkt.students.protocol import student_of
from langchain_gkt.students.voting import AnswerOf, check_answer_of
from langchain_gkt.teachers.prefill import accepts_prefill
from langchain_gkt.teachers.tools import bound_arguments, offered_tools
from langchain_gkt.teachers.wrappers import resolve


@dataclass(frozen=True, kw_only=True)
class CallSettings:
    """The models and the checked settings of one call. Fields named as the chain's mean the same.

    Attributes:
        teacher: A chat model, wrapped or not, with nothing left to configure.
        student: A chat model that continues a trailing AIMessage.
        call_id: The id of the call, in the metadata of both child runs.
        strategy: How to make the answer.
        policy: Where to cut guidance, and when to ask for it.
        limit: Maximum completion tokens of the teacher. None for its own limit.
        limit_param: The teacher's own name for that limit, if it is not a usual one.
        guidance_tokens: The number of teacher tokens that a teacher prompt names.
        fall_back: Whether the student answers alone if the teacher fails.
        teacher_may_answer: Whether the teacher answers the whole turn if the student fails.
        breaker: Stops calling a teacher that keeps failing. None for no breaker.
        prefill: Whether the teacher continues a begun answer. None to decide by its model.
        callbacks: Handlers from the chain's constructor.
        parent: The chain's run, or None if nobody listens.
        model: The teacher's model for this call alone, or None for its own.
        tools: Tools in OpenAI's form.
        tool_arguments: Further arguments of the teacher's ``bind_tools``.
        response_format: Asks for JSON of a schema. See `structured_output.schema.schema_in`.
        hide_child_runs: Whether only handlers that follow runs get the children's events.
        warned: Warnings that the chain has already given.
        deadline: When the call has to end. Its clock runs. None for no limit.
        is_text_turn: Whether a vote has decided that the student calls no tool.
    """

    teacher: Runnable[Any, Any]
    student: BaseChatModel
    call_id: str
    strategy: Strategy
    policy: GuidancePolicy
    limit: int | None
    limit_param: str | None
    guidance_tokens: int | None
    max_tokens: int | None
    temperature: float | None
    stop: list[str] | None
    fall_back: bool
    teacher_may_answer: bool
    on_refusal: str
    breaker: CircuitBreaker | None
    prefill: bool | None
    callbacks: Callbacks
    parent: BaseRunManager | None
    teacher_prompt: Any
    samples: int
    answer_of: AnswerOf
    model: str | None
    tools: Sequence[dict[str, Any]]
    tool_arguments: dict[str, Any]
    response_format: dict[str, Any] | None
    hide_child_runs: bool
    warned: set[str]
    deadline: Deadline | None
    is_text_turn: bool = False

    @classmethod
    def of(
        cls,
        chain: ChainFields,
        stop: list[str] | None,
        parent: BaseRunManager | None,
        arguments: dict[str, Any],
        warned: set[str],
    ) -> CallSettings:
        """Check the settings of one call, whose arguments override the chain's fields.

        ``stop`` is the call's, and None for the chain's. ``warned`` holds the warnings that the
        chain has already given.
        """
        owner = f"a call of {type(chain).__name__}"
        refuse_unknown(arguments.keys() - set(INTERNAL_ARGUMENTS), CALL_ARGUMENTS, owner)
        values = {name: arguments.get(name, getattr(chain, name)) for name in CALL_FIELDS}
        strategy = strategy_of(values["mode"])
        policy = reserving(as_policy(values["guidance"]) or GuidancePolicy(), arguments)
        # Only a policy given for this call names a number. See GuidedKnowledgeTransferChain.
        guidance_tokens = policy.tokens
        if guidance_tokens is None or "guidance_tokens" in arguments:
            guidance_tokens = check_guidance_tokens(values["guidance_tokens"])
        limit: int | None = guidance_tokens
        max_tokens = check_max_tokens(values["max_tokens"])
        if not strategy.asks_student:
            limit = max_tokens
        elif max_tokens is not None:
            limit = min(guidance_tokens, max_tokens)
        fall_back = chain.on_teacher_error == "student"
        if response_format := arguments.get("response_format"):
            schema = schema_in(response_format)
            if strategy.asks_teacher:  # a student alone checks it by itself
                check_schema(schema)
        deadline = None
        if (timeout := check_timeout(values["timeout"])) is not None:
            reserves_time = fall_back and strategy.student_may_answer
            deadline = Deadline(timeout, reserves_student_time=reserves_time)
        settings = cls(
            teacher=resolve(chain.teacher, None),
            student=chain.loaded_student,
            call_id=str(uuid.uuid4()),
            strategy=strategy,
            policy=policy,
            limit=limit,
            limit_param=chain.teacher_limit_param,
            guidance_tokens=guidance_tokens,
            max_tokens=max_tokens,
            temperature=check_temperature(values["temperature"]),
            stop=stop if stop is not None else chain.stop,
            fall_back=fall_back,
            teacher_may_answer=chain.on_student_error == "teacher" and strategy.asks_teacher,
            on_refusal=chain.on_refusal,
            breaker=chain.circuit_breaker,
            prefill=chain.teacher_prefill,
            callbacks=chain.callbacks,
            parent=parent,
            teacher_prompt=_prompt_of(chain, policy, strategy, arguments),
            samples=check_samples(policy.samples or values["samples"]),
            answer_of=check_answer_of(policy.answer_of or values["answer_of"]),
            model=arguments.get("model"),
            tools=[in_openai_form(tool) for tool in arguments.get("tools") or ()],
            tool_arguments={
                **(arguments.get("tool_arguments") or {}),
                **{name: arguments[name] for name in TOOL_ARGUMENTS if name in arguments},
            },
            response_format=response_format,
            hide_child_runs=hides_child_runs(arguments),
            warned=warned,
            deadline=deadline,
        )
        if settings.tools:
            check_tool_policy(policy, student_of(settings.student), settings.teacher_tools)
        return settings

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher may be called at all."""
        if self.strategy.asks_student and self.policy.ask == "never":
            return False
        return self.strategy.asks_teacher and self.limit != 0

    @property
    def wants_whole_answer(self) -> bool:
        """Whether the student does not continue the teacher's text."""
        strategy = self.strategy
        if strategy.asks_own_questions or not strategy.asks_student:
            return True
        return self.limit is None or self.limit == self.max_tokens

    @property
    def mode(self) -> Mode:
        """The strategy's name."""
        return self.strategy.name

    @property
    def teacher_continues(self) -> bool:
        """Whether the teacher takes a conversation that ends in a begun answer."""
        if self.prefill is None:
            return accepts_prefill(self.teacher, self.model)
        return self.prefill

    @property
    def gate(self) -> Gate | None:
        """Decides by the question whether to call the teacher. None if nothing does."""
        # Tool calls have a gate of their own, and the first tokens of an object are its braces.
        plain = (not self.tools or self.is_text_turn) and not self.response_format
        gate = self.policy.active_gate if plain else None
        return gate and gate.reading(self.answer_of)

    @property
    def tool_gate(self) -> AgreementGate | None:
        """Decides whether the student makes the turn's tool calls. None if nothing does."""
        gate = self.policy.tools
        decides = self.tools and not self.is_text_turn and not self.response_format
        both = self.asks_teacher and self.strategy.asks_student
        return gate if isinstance(gate, AgreementGate) and decides and both else None

    @property
    def tool_choice(self) -> Any:
        """The caller's ``tool_choice``. None if it names none."""
        return self.tool_arguments.get("tool_choice")

    @property
    def forces_tool(self) -> bool:
        """Whether the caller demands a tool call."""
        return bool(self.tools) and required_tool(self.tool_choice) is not None

    @property
    def teacher_is_forced(self) -> bool:
        """Whether the teacher must call a tool, by the call or by its own bound arguments."""
        bound = bound_arguments(self.teacher)
        choice = self.tool_arguments.get("tool_choice", bound.get("tool_choice"))
        return bool(self.tools or bound.get("tools")) and required_tool(choice) is not None

    @property
    def teacher_tools(self) -> list[dict[str, Any]]:
        """The tools that the teacher may call: its own and those of the call."""
        return offered_tools(bound_arguments(self.teacher), self.tools)

    @property
    def model_name(self) -> str:
        """The chain's name in metadata. Never a vendor's, unless the caller named a model."""
        return f"langchain-gkt/{self.model}" if self.model else "langchain-gkt"

    @property
    def stop_arguments(self) -> dict[str, Any]:
        """The ``stop`` argument of the models' calls. Left out if there is none."""
        # None would hide a model's bound value.
        return {} if self.stop is None else {"stop": self.stop}

    @property
    def temperature_argument(self) -> dict[str, Any]:
        """The ``temperature`` argument of a student's call. Left out if there is none."""
        return {} if self.temperature is None else {"temperature": self.temperature}

    @property
    def student_arguments(self) -> dict[str, Any]:
        """The arguments of a student's call that makes a whole answer."""
        limit = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return {**self.stop_arguments, **limit}

    def child(self, role: Role) -> RunnableConfig:
        """Return the config of one model's run."""
        return child_config(
            self.parent,
            role,
            own_callbacks=self.callbacks,
            metadata={
                "gkt_call_id": self.call_id,
                "gkt_mode": self.mode,
                "gkt_compared": self.strategy.has_teacher_counterpart,
            },
            hide_child_runs=self.hide_child_runs,
        )

    def warn_once(self, key: str, message: str) -> None:
        """Warn the user, once for a chain and all its calls. The key names the warning."""
        if key not in self.warned:
            self.warned.add(key)
            warnings.warn(message, UserWarning, stacklevel=2)

    def warn_of_reasoning(self, role: Role) -> None:
        """Warn once that a model's reasoning has been shown. Its text is not streamed any more."""
        self.warn_once(
            f"shown-{role}-reasoning",
            f"the {role}'s reasoning was shown as text, because only its end is marked "
            "(</think>); from now on its text is shown when it is whole. Turn its reasoning "
            "off, or have its server leave reasoning out of the text.",
        )


def _prompt_of(
    chain: ChainFields, policy: GuidancePolicy, strategy: Strategy, arguments: dict[str, Any]
) -> Any:
    """Return the teacher prompt of a call: its own, else that of its policy or of the chain."""
    prompt = chain.teacher_prompt if policy.teacher_prompt is None else policy.teacher_prompt
    if "teacher_prompt" in arguments:
        prompt = check_teacher_prompt(arguments["teacher_prompt"])
    elif not strategy.asks_student:  # the baseline: the teacher in place of the whole chain
        prompt = None
    if chain.redact is None:
        return prompt
    return TeacherPromptSequence(steps=(prompt, chain.redact))  # last, so it sees all that is sent
