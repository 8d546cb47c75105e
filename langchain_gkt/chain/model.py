"""GuidedModel: what the chain is and holds, and the calls that langchain-core makes of it."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from langchain_gkt.chain.call import Call, Mode, refuse_unsure_student
from langchain_gkt.chain.messages import joined
from langchain_gkt.errors import refuse_unknown
from langchain_gkt.guidance import GuidancePolicy, as_policy
from langchain_gkt.structured_output.schema import schema_in
from langchain_gkt.students.conversion import STUDENT_VARIABLE, as_student
from langchain_gkt.teachers import settings as teachers
from langchain_gkt.teachers.pickling import dumped, loaded

_SETTINGS = ("guidance_tokens", "guidance", "mode", "max_tokens", "temperature")
_OF_TOOLS = ("tool_choice", "parallel_tool_calls", "strict")
CALL_ARGUMENTS = (*_SETTINGS, "model", "tools", *_OF_TOOLS, "response_format")
"""Arguments of a call, as users give them."""
_INNER = ("tool_arguments", "quiet")


class GuidedModel(BaseChatModel):
    """The fields of a guided pair and one call of it; `GuidedKnowledgeTransferChain` opens it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    teacher: Any = Field(repr=False)
    """Any LangChain chat model, or one wrapped by bind, with_retry or with_fallbacks."""
    student: Any
    """Whatever `as_student` takes."""
    guidance_tokens: int = Field(default=40, ge=0)
    """Most completion tokens the teacher may write. 0 asks no teacher."""
    guidance: GuidancePolicy | None = None
    """How guidance is measured and cut, and when it is asked for; None for whole words, always.
    A JSON file that `GuidancePolicy.save` wrote may be named instead."""
    mode: Mode = "guided"
    """``teacher`` and ``student`` are the single-model baselines, through the same door."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a whole answer, guidance included; None for the models' own limits."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature of both models; None for their own."""
    stop: list[str] | None = None
    """Strings that end an answer when a call names none."""
    student_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Fields of `HuggingFaceStudent`, for a student that is yet to be loaded."""
    on_teacher_error: Literal["raise", "student"] = "raise"
    """Whether a failing teacher fails the call or leaves it to the student."""
    teacher_limit_param: str | None = None
    """The teacher's name for its completion limit, where it is not a usual one."""
    budget: Any = Field(default=None, repr=False)
    """A `Budget` of this chain's own, or None; copies of the chain share it."""
    streaming: bool | None = None
    """True has ``invoke`` hand tokens to listening handlers; False keeps ``stream`` from it."""

    # The teacher and what it was when the chain first saw it; see `_get_llm_string`.
    _known_teacher: tuple[Any, str] | None = PrivateAttr(default=None)
    _run: BaseRunManager | None = PrivateAttr(default=None)
    _producer: Any = PrivateAttr(default=None)
    _warned: set[str] = PrivateAttr(default_factory=set)

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Any) -> Any:
        refuse_unknown(values, cls.model_fields, cls.__name__)
        tokens = values.get("guidance_tokens")
        if isinstance(tokens, int) and tokens < 0:
            raise ValueError(f"guidance_tokens must be 0 (student only) or more, not {tokens}")
        student = values.get("student", os.environ.get(STUDENT_VARIABLE))
        if student is None:
            raise ValueError(
                "student is missing: give a folder, a hub id or a loaded model, or set the "
                f"environment variable {STUDENT_VARIABLE}"
            )
        kwargs = values.get("student_kwargs") or {}
        values = {**values, "student": as_student(student, **kwargs), "student_kwargs": {}}
        policy = values["guidance"] = as_policy(values.get("guidance"))
        if policy is not None and policy.tokens is not None:
            if tokens not in (None, policy.tokens):
                raise ValueError(
                    f"guidance_tokens={tokens} and guidance.tokens={policy.tokens} disagree; "
                    "give one of them"
                )
            # One place for the number, so that configurable_fields can change it.
            values["guidance_tokens"] = policy.tokens
            values["guidance"] = replace(policy, tokens=None)
        return values

    @field_validator("teacher")
    @classmethod
    def _check_teacher(cls, teacher: Any) -> Any:
        if not teachers.is_configurable(teacher):
            list(teachers.models_of(teacher))
        return teacher

    @model_validator(mode="after")
    def _check_confidence(self) -> GuidedModel:
        if self.guidance is not None and self.guidance.threshold is not None:
            refuse_unsure_student(self.student, self.guidance)
        return self

    @model_validator(mode="after")
    def _keep_budget(self) -> GuidedModel:
        if self.budget is not None:
            from langchain_gkt.costs import CostTracker  # only a chain with a budget needs it

            keeper, given = CostTracker(budget=self.budget), self.callbacks
            if isinstance(given, BaseCallbackManager):
                self.callbacks = given.copy()
                self.callbacks.add_handler(keeper)
            else:
                self.callbacks = [*(given or []), keeper]
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Remember what the teacher is before it changes with use."""
        super().model_post_init(context)
        self._teacher_identity()

    def _teacher_identity(self) -> str:
        # Taken once per teacher: some count their calls in fields of their own.
        if self._known_teacher is None or self._known_teacher[0] is not self.teacher:
            self._known_teacher = (self.teacher, repr(teachers.identity(self.teacher)))
        return self._known_teacher[1]

    @property
    def _llm_type(self) -> str:
        return "langchain-gkt"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What traces say of the chain."""
        names = (
            "guidance_tokens",
            "guidance",
            "mode",
            "max_tokens",
            "temperature",
            "stop",
            "on_teacher_error",
            "teacher_limit_param",
        )
        # Vendor ids stay out of fields that agents choose strategies by.
        return {
            "model_name": "langchain-gkt",
            "teacher": [
                {"class": type(model).__name__, **model._identifying_params}
                for model in teachers.models_of(teachers.resolved(self.teacher, None))
            ],
            "student": {"class": type(self.student).__name__, **self.student._identifying_params},
            **{name: getattr(self, name) for name in names},
        }

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Name everything an answer depends on: the key of LangChain's cache."""
        mine = self._identifying_params
        student = self.student._get_llm_string() if self.mode != "teacher" else None
        parts = (mine, self._teacher_identity(), student, stop, sorted(kwargs.items()))
        # A digest, because a teacher's settings may hold what a cache should not.
        return f"langchain-gkt:{hashlib.sha256(repr(parts).encode()).hexdigest()}"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "langchain-gkt"
        params["ls_model_name"] = kwargs.get("model", "langchain-gkt")
        return params

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle what can be rebuilt: clients and locks of a teacher are made anew."""
        state = super().__getstate__()
        fields = {**state["__dict__"], "teacher": dumped(self.teacher)}
        empty = {"_run": None, "_producer": None, "_known_teacher": None}
        private = {**(state["__pydantic_private__"] or {}), **empty}
        return {**state, "__dict__": fields, "__pydantic_private__": private}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Undo `__getstate__`."""
        fields = {**state["__dict__"], "teacher": loaded(state["__dict__"]["teacher"])}
        super().__setstate__({**state, "__dict__": fields})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> GuidedModel:
        """Copy the settings; the teacher, which calls never change, and the weights are shared."""
        memo = {} if memo is None else memo
        memo[id(self.teacher)] = self.teacher
        return super().__deepcopy__(memo)

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise a text as the student does; in mode ``teacher`` as the teacher does.

        Args:
            text: The text.

        Returns:
            Its ids.
        """
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        if self.mode == "teacher":
            first = next(teachers.models_of(teachers.resolved(self.teacher, None)))
            return first.get_token_ids(text)
        ids: list[int] = self.student.get_token_ids(text)
        return ids

    # --- one call ---

    def _settings(
        self, stop: list[str] | None, parent: BaseRunManager | None, kwargs: dict[str, Any]
    ) -> Call:
        outer = kwargs.keys() - set(_INNER)
        refuse_unknown(outer, CALL_ARGUMENTS, f"a call of {type(self).__name__}")
        given = {name: kwargs.get(name, getattr(self, name)) for name in _SETTINGS}
        if given["mode"] not in ("guided", "teacher", "student"):
            raise ValueError(
                f"mode must be 'guided', 'teacher' or 'student', not {given['mode']!r}"
            )
        policy = as_policy(given["guidance"]) or GuidancePolicy()
        # Only a policy given for this call still names a number; see _check_arguments.
        limit: int | None = policy.tokens
        if limit is None or "guidance_tokens" in kwargs:
            limit = given["guidance_tokens"]
        if not isinstance(limit, int) or limit < 0:
            raise ValueError(
                f"guidance_tokens must be 0 (student only) or more, a whole number, not {limit!r}"
            )
        most, heat = given["max_tokens"], given["temperature"]
        if most is not None and (not isinstance(most, int) or most < 1):
            raise ValueError(f"max_tokens must be a whole number, 1 or more, not {most!r}")
        if heat is not None and (not isinstance(heat, int | float) or heat < 0):
            raise ValueError(f"temperature must be a number, 0 or more, not {heat!r}")
        if given["mode"] == "teacher":
            limit = most
        elif most is not None:
            limit = min(limit, most)
        if schema := kwargs.get("response_format"):
            schema_in(schema)
        return Call(
            teacher=teachers.resolved(self.teacher, None),
            student=self.student,
            limit_param=self.teacher_limit_param,
            fall_back=self.on_teacher_error == "student",
            callbacks=self.callbacks,
            warned=self._warned,
            call_id=str(uuid.uuid4()),
            mode=given["mode"],
            policy=policy,
            limit=limit,
            max_tokens=most,
            temperature=given["temperature"],
            stop=stop if stop is not None else self.stop,
            parent=parent,
            model=kwargs.get("model"),
            tools=[convert_to_openai_tool(tool) for tool in kwargs.get("tools") or ()],
            tool_arguments={
                **(kwargs.get("tool_arguments") or {}),
                **{name: kwargs[name] for name in _OF_TOOLS if name in kwargs},
            },
            response_format=kwargs.get("response_format"),
            quiet=bool(kwargs.get("quiet") or kwargs.get("response_format")),
        )

    # --- BaseChatModel ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._settings(stop, run_manager or self._run, kwargs)
        return joined(list(call.produce(messages, live=False)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._settings(stop, run_manager or self._run, kwargs)
        return joined([chunk async for chunk in call.aproduce(messages, live=False)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._settings(stop, run_manager or self._run, kwargs)
        self._producer = call.produce(messages, live=True)
        yield from self._producer

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._settings(stop, run_manager or self._run, kwargs)
        self._producer = call.aproduce(messages, live=True)
        async for chunk in self._producer:
            yield chunk
