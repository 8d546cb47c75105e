"""The teacher's step of a call: ask it within its limit, and read guidance or a tool call."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_callback_manager_for_config, merge_configs

from langchain_gkt._langchain_compat import blocks_threads
from langchain_gkt.chain.callbacks.handlers import with_costs
from langchain_gkt.chain.drivers import (
    NEXT_CHUNK,
    BlockingWork,
    CallSteps,
    ModelCall,
    run_async,
    run_sync,
)
from langchain_gkt.chain.messages import continue_after, leading_text
from langchain_gkt.chain.reliability.breaker import guarded
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.reading import read, showable
from langchain_gkt.chain.steps.received import received
from langchain_gkt.chain.steps.teacher_outcome import TeacherOutcome
from langchain_gkt.costs.observer import observers_in
from langchain_gkt.errors import GKTError, refuse_broken_text, wrap_errors
from langchain_gkt.guidance import Guidance
from langchain_gkt.prompts.base import PreparedPrompt, PromptContext, aprepare, prepare
from langchain_gkt.providers.errors import teacher_error
from langchain_gkt.providers.usage import repeated
from langchain_gkt.structured_output.schema import schema_in, with_instruction
from langchain_gkt.teachers import settings as teacher_settings
from langchain_gkt.teachers.attempts import AttemptGate
from langchain_gkt.teachers.prefill import as_instruction, without_repetition
from langchain_gkt.teachers.secrets import hiding
from langchain_gkt.teachers.tools import is_cut_tool_call, tool_names, without_cut_calls
from langchain_gkt.teachers.wrappers import is_guarded, models_of
from langchain_gkt.texts.begun_answer import begun_text
from langchain_gkt.texts.tool_text import may_be_call


@dataclass(frozen=True)
class TeacherStep:
    """Asks the teacher."""

    settings: CallSettings

    def guarded(self) -> AbstractContextManager[None]:
        """Return the context in which to ask the teacher. A circuit breaker may refuse."""
        settings = self.settings
        return guarded(
            settings.breaker, list(models_of(settings.teacher)), settings.child("teacher")
        )

    def prompt_context(self, messages: list[BaseMessage]) -> PromptContext:
        """Return the context for a teacher prompt."""
        settings = self.settings
        if settings.teacher_prompt is None:
            return PromptContext(conversation=messages)
        child = settings.child("student")
        metadata = {k: v for k, v in child["metadata"].items() if k != "gkt_role"}
        own_run: RunnableConfig = {**child, "run_name": "teacher_prompt", "metadata": metadata}
        return PromptContext(
            conversation=messages,
            guidance_tokens=settings.guidance_tokens,
            whole_reply=settings.teacher_is_forced or settings.response_format is not None,
            whole_answer=settings.wants_whole_answer,
            has_tools=bool(settings.teacher_tools),
            student=settings.student,
            student_config={**child, "run_name": "summary"},
            student_arguments=settings.temperature_argument,
            config={**own_run, "tags": ["nostream"]},
        )

    def prepare(self, messages: list[BaseMessage], context: PromptContext) -> BlockingWork:
        """Make the teacher's prompt, a `PreparedPrompt`, from a conversation."""
        prompt = self.settings.teacher_prompt
        return BlockingWork(
            partial(prepare, prompt, messages, context),
            partial(aprepare, prompt, messages, context),
            stage="teacher prompt",
        )

    def run(
        self,
        prompt: PreparedPrompt,
        outcome: TeacherOutcome,
        *,
        streaming: bool,
        reserved: int,
    ) -> CallSteps:
        """Ask the teacher, a second time if the limit truncated a tool call. The outcome is filled.

        Text that the outcome has already shown is the beginning of the answer. The student needs
        the ``reserved`` tokens of it at least.
        """
        settings = self.settings
        limit, messages = self._first_limit(reserved), list(prompt.messages)
        begun = outcome.shown
        call = self.model_call(messages, limit, settings.child("teacher"), streaming=streaming)
        outcome.calls += 1
        reply = yield call
        tools = settings.teacher_tools
        if call.streams:
            names = tool_names(tools)
            chunk, reply, usages = reply, None, []
            while chunk is not None:
                usages.append(getattr(chunk, "usage_metadata", None))
                reply = chunk if reply is None else reply + chunk
                # Blocks before a tool call keep their place in front of the text.
                text = leading_text(reply) if tools else str(reply.text)
                visible = showable(settings, text, limit, prompt)
                # Shown text may turn out to be reasoning.
                new = visible.removeprefix(outcome.shown)
                new = new if visible.startswith(outcome.shown) else ""
                if new and not may_be_call(text, names):  # a call is not text to show
                    yield from outcome.show(new, reply if tools else None)
                chunk = yield NEXT_CHUNK
            if reply is not None and (usage := repeated(usages)):
                reply = reply.model_copy(update={"usage_metadata": usage})
        reply = self._received(prompt, reply, outcome)
        if begun:
            reply = continue_after(begun, reply)
        is_cut = is_cut_tool_call(reply, limit, tools=tools)
        if is_cut and limit != settings.max_tokens:
            first_text, limit = leading_text(reply), settings.max_tokens
            call = self.model_call(messages, limit, settings.child("teacher"), streaming=False)
            outcome.calls += 1
            reply = self._received(prompt, (yield call), outcome)
            if outcome.shown:
                reply = continue_after(first_text, reply)
            is_cut = is_cut_tool_call(reply, limit, tools=tools)
        if is_cut:
            reply = without_cut_calls(reply, tools)
        if reply.tool_calls or reply.invalid_tool_calls:
            outcome.tool_reply = reply
        else:
            outcome.guidance = read(settings, prompt, reply, limit, outcome)

    def guide(self, messages: list[BaseMessage], config: RunnableConfig | None) -> Guidance:
        """Ask the teacher for guidance only.

        Raises:
            ValueError: If the settings ask no teacher.
            TeacherError: If the teacher fails or writes nothing.
        """
        guidance = list[Guidance]()
        for _ in run_sync(self._guide(messages, config, guidance), self.settings.deadline):
            pass  # nothing is shown
        return guidance[0]

    async def aguide(self, messages: list[BaseMessage], config: RunnableConfig | None) -> Guidance:
        """Do what `guide` does, on the event loop."""
        guidance = list[Guidance]()
        async for _ in run_async(self._guide(messages, config, guidance), self.settings.deadline):
            pass
        return guidance[0]

    def _guide(
        self, messages: list[BaseMessage], config: RunnableConfig | None, guidance: list[Guidance]
    ) -> CallSteps:
        settings = self.settings
        with wrap_errors(GKTError, "the teacher's prompt could not be made"):
            if not settings.asks_teacher:
                raise ValueError(
                    "guide() asks the teacher; use mode='guided' and guidance_tokens of 1 or more"
                )
            config = merge_configs(config, settings.child("teacher"))
            config["callbacks"] = with_costs(config["callbacks"])
            refuse_broken_text(messages)
            prompt = yield self.prepare(messages, self.prompt_context(messages))
        try:
            call = self.model_call(list(prompt.messages), settings.limit, config, streaming=False)
            with self.guarded():
                outcome = TeacherOutcome()
                reply = self._received(prompt, (yield call), outcome)
                guidance.append(read(settings, prompt, reply, settings.limit, outcome))
        except GKTError:
            raise
        except Exception as error:
            raise teacher_error(error) from error

    def _first_limit(self, reserved: int) -> int | None:
        """Return the limit of the first reply. A required tool call has no limit."""
        settings = self.settings
        if settings.teacher_is_forced:
            return settings.max_tokens
        if settings.limit is None or settings.max_tokens is None or not reserved:
            return settings.limit
        return max(1, min(settings.limit, settings.max_tokens - reserved))

    def model_call(
        self,
        messages: list[BaseMessage],
        limit: int | None,
        config: RunnableConfig,
        *,
        streaming: bool,
    ) -> ModelCall:
        """Return the call of the teacher by the settings, within a limit of completion tokens.

        Raises:
            BudgetExceeded: If the call could pass a budget.
        """
        settings = self.settings
        streams = (
            streaming
            and teacher_settings.streams_usage(settings.teacher)
            and not {"ignored-limit", "shown-teacher-reasoning"} & settings.warned
        )
        if begun_text(messages) is not None and not settings.teacher_continues:
            # Only the whole reply shows whether it repeats the begun text.
            messages, streams = as_instruction(messages), False
        if settings.response_format:
            messages = with_instruction(messages, schema_in(settings.response_format))
        gate = self._admit(messages, limit, config)
        arguments = settings.stop_arguments
        if settings.model:
            arguments["model"] = settings.model
        return ModelCall(
            model=self._limited_teacher(limit, stream=streams, gate=gate),
            messages=messages,
            config=hiding(config, settings.teacher),
            arguments=arguments,
            streams=streams,
            has_async=teacher_settings.has_async(settings.teacher),
            blocks=any(map(blocks_threads, models_of(settings.teacher))),
        )

    def _received(
        self, prompt: PreparedPrompt, reply: AIMessage, outcome: TeacherOutcome
    ) -> AIMessage:
        """Count a reply, let it follow a begun answer, and undo the prompt's changes."""
        reply = received(self.settings, reply, "teacher")
        outcome.count(reply)
        begun = begun_text(prompt.messages)
        if begun is not None and not self.settings.teacher_continues:
            reply = without_repetition(begun, reply)
        return prompt.restored(reply)

    def _limited_teacher(
        self, limit: int | None, *, stream: bool, gate: AttemptGate | None
    ) -> Runnable[Any, Any]:
        settings = self.settings
        can_limit = teacher_settings.can_limit(settings.teacher, settings.limit_param)
        if limit is not None and not can_limit:
            settings.warn_once(
                "no-limit",
                "the teacher knows no completion limit that could be set; its whole answers are "
                "paid for and cut afterwards. Name its limit with teacher_limit_param=.",
            )
        return teacher_settings.with_settings(
            settings.teacher,
            teacher_settings.TeacherSettings(
                limit=limit,
                limit_param=settings.limit_param,
                temperature=settings.temperature,
                stream=stream,
                tools=settings.tools,
                tool_arguments=settings.tool_arguments,
                asks_format=settings.response_format is not None,
                gate=gate,
            ),
        )

    def _admit(
        self, messages: list[BaseMessage], limit: int | None, config: RunnableConfig
    ) -> AttemptGate | None:
        """Let every handler with a budget refuse the call before it costs anything.

        Returns:
            A gate that asks them again before further attempts. None if there are none.
        """
        manager = get_callback_manager_for_config(config)
        observers = observers_in(manager.handlers)
        models = list(models_of(self.settings.teacher))

        def admit() -> None:
            for observer in observers:
                observer.admit_teacher(
                    models,
                    messages,
                    call_id=self.settings.call_id,
                    compared=self.settings.strategy.has_teacher_counterpart,
                    limit=limit,
                    root=manager.parent_run_id,
                )

        admit()
        return AttemptGate(admit) if observers and is_guarded(self.settings.teacher) else None
