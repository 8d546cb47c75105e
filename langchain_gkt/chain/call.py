"""One call of the chain: the teacher begins the answer, the student finishes it.

The steps of a call are written once, as a generator; `drivers` runs it with an event loop or
without.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGenerationChunk

from langchain_gkt.chain.callbacks.usage import prompt_share, usage_of_answer
from langchain_gkt.chain.drivers import CallSteps, run_async, run_sync
from langchain_gkt.chain.messages import provider_of, rest_of, text_chunk, tool_call_chunk_of
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.student_step import StudentStep
from langchain_gkt.chain.steps.teacher_outcome import TeacherOutcome
from langchain_gkt.chain.steps.teacher_step import TeacherStep
from langchain_gkt.errors import (
    BudgetExceeded,
    GKTError,
    StudentError,
    TeacherError,
    bounded,
    own_errors,
    refuse_broken_text,
    refuse_empty,
)
from langchain_gkt.guidance import confidence
from langchain_gkt.metadata import GKTMetadata
from langchain_gkt.predictor import Amount, Prediction, probability_of, question_of
from langchain_gkt.prompts.base import PreparedPrompt, PromptContext
from langchain_gkt.providers.errors import provider_error, teacher_error
from langchain_gkt.teachers.refusals import is_refusal, refused
from langchain_gkt.teachers.replies import finish_reason
from langchain_gkt.teachers.secrets import hide_in_error, secrets_of


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """How much the teacher writes in one call, and what that was decided by."""

    amount: Amount
    confidence: float | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class GuidedCall:
    """One call, made of a teacher step and a student step over the same settings.

    Attributes:
        settings: The settings of the call.
    """

    settings: CallSettings

    @property
    def teacher(self) -> TeacherStep:
        """The teacher's step."""
        return TeacherStep(self.settings)

    @property
    def student(self) -> StudentStep:
        """The student's step."""
        return StudentStep(self.settings)

    def run(self, messages: list[BaseMessage], *, streaming: bool) -> Iterator[ChatGenerationChunk]:
        """Make the call.

        Args:
            messages: The conversation.
            streaming: Whether the models are streamed; if not, each gives its text at once.

        Yields:
            The chunks of the answer; the last one carries usage and metadata.
        """
        with own_errors(GKTError, "the call failed"):
            yield from run_sync(self._steps(messages, streaming=streaming), self.settings.deadline)

    async def arun(
        self, messages: list[BaseMessage], *, streaming: bool
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Do what `run` does, on the event loop.

        Args:
            messages: The conversation.
            streaming: Whether the models are streamed.

        Yields:
            The chunks of the answer.
        """
        with own_errors(GKTError, "the call failed"):
            steps = self._steps(messages, streaming=streaming)
            async with aclosing(run_async(steps, self.settings.deadline)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _steps(self, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
        refuse_empty(messages)
        refuse_broken_text(messages)
        decision, call = (yield from self._decide(messages)), self
        if decision.amount == "all":
            call = GuidedCall(replace(self.settings, limit=self.settings.max_tokens))
        yield from call._answer(messages, decision, streaming=streaming)

    def _decide(self, messages: list[BaseMessage]) -> Generator[Any, Any, _Decision]:
        """Decide how much the teacher writes, by the student's first tokens if need be."""
        settings, policy, first = self.settings, self.settings.policy, []
        if not settings.asks_teacher:
            return _Decision(amount="none")
        if not settings.gated:
            return _Decision(amount="some")
        if policy.probed:
            first = yield self.student.probe(messages)
        sureness = confidence([probability_of(one) for one in first]) if first else None
        if policy.predictor is not None:
            found = policy.predictor.predict(question_of(messages), first)
            return _Decision(amount=found.amount, confidence=sureness, prediction=found)
        unsure = (1.0 if sureness is None else sureness) < (policy.threshold or 0.0)
        return _Decision(amount="some" if unsure else "none", confidence=sureness)

    def _answer(
        self, messages: list[BaseMessage], decision: _Decision, *, streaming: bool
    ) -> CallSteps:
        reserved, prefilled = 0, nullcontext[Any]()
        # Behind the teacher's whole answer nothing is left to the student.
        if work := self.student.prepare(messages, asks_teacher=decision.amount == "some"):
            reserved, prefilled = yield work
        context = self.teacher.prompt_context(messages)
        with prefilled:
            outcome, error = TeacherOutcome(), None
            if decision.amount != "none":
                error = yield from self._ask_teacher(
                    messages, context, outcome, streaming=streaming, reserved=reserved
                )
            fallback = self._fallback(error) or outcome.fallback
            reply = yield from self._finish(messages, outcome, streaming=streaming)
            yield self._last_chunk(outcome, reply, fallback, decision, context.student_usage)

    def _ask_teacher(
        self,
        messages: list[BaseMessage],
        context: PromptContext,
        outcome: TeacherOutcome,
        *,
        streaming: bool,
        reserved: int,
    ) -> Generator[Any, Any, Exception | None]:
        """Ask the teacher; return what its call failed with, or None."""
        prompt = PreparedPrompt(messages=messages)
        if self.settings.teacher_prompt is not None:
            try:
                prompt = yield self.teacher.prepare(messages, context)
            except TeacherError as error:  # there was no time to make it
                return error
            outcome.prompt_share = prompt_share(messages, prompt)
        try:
            with self.teacher.watched():
                yield from self.teacher.run(prompt, outcome, streaming=streaming, reserved=reserved)
        except Exception as caught:  # noqa: BLE001  whatever a provider raises
            failure = hide_in_error(caught, secrets_of(self.settings.teacher))
            outcome.keep_shown()
            if is_refusal(failure):
                outcome.refusal = bounded(str(failure))
            return failure
        return None

    def _fallback(self, error: Exception | None) -> str | None:
        """Return why the student answers alone, or raise the error of the teacher's call."""
        if error is None:
            return None
        guided = self.settings.mode == "guided"
        if isinstance(error, BudgetExceeded):
            if error.go_on and guided:
                return f"BudgetExceeded: {error}"
            raise error
        student_can = not self.settings.forces_tool or self.student.tools
        if is_refusal(error):
            if self.settings.on_refusal == "student" and guided and student_can:
                return bounded(f"the teacher refused: {error}")
            raise refused(error)
        if self.settings.fall_back and guided and student_can:
            return bounded(f"{type(error).__name__}: {error}")
        failure = teacher_error(error)
        if failure is error:
            raise error
        raise failure from error

    def _finish(
        self, messages: list[BaseMessage], outcome: TeacherOutcome, *, streaming: bool
    ) -> Generator[Any, Any, AIMessage | None]:
        """Show what the teacher gave and have the student finish it; return its reply."""
        if reply := outcome.tool_reply:
            yield tool_call_chunk_of(reply, rest_of(reply, outcome.shown))
            return None
        guidance = outcome.guidance
        if guidance and (new := guidance.text[len(outcome.shown) :]):
            yield text_chunk(new)
        in_answer = outcome.tokens if guidance is None or guidance.dropped is None else 0
        if guidance and not guidance.complete and outcome.calls == 1 and self.settings.limit:
            in_answer = min(in_answer, self.settings.limit)  # more was cut away
        call = self.student.model_call(messages, guidance, in_answer, streaming=streaming)
        if call is None:
            return None
        try:
            return (yield from self.student.write(call, guidance.text if guidance else ""))
        except GKTError:
            raise
        except Exception as error:  # another client's
            raise provider_error(error, StudentError, "student") from error

    def _last_chunk(
        self,
        outcome: TeacherOutcome,
        reply: AIMessage | None,
        fallback: str | None,
        decision: _Decision,
        student_usage: UsageMetadata | None,
    ) -> ChatGenerationChunk:
        """Make the chunk that carries usage and metadata, and no text."""
        if reply and reply.usage_metadata:
            student_usage = add_usage(student_usage, reply.usage_metadata)
        guidance, reason = outcome.guidance, None
        if reply:
            reason = reply.response_metadata.get("finish_reason")
        elif guidance:
            reason = guidance.finish_reason if guidance.complete else "length"
        elif outcome.tool_reply:
            reason = finish_reason(outcome.tool_reply)
        gkt = GKTMetadata(
            guidance=guidance.text if guidance else "",
            guidance_tokens=outcome.tokens,
            guidance_tokens_estimated=outcome.estimated,
            finished_by="student" if reply else "teacher",
            teacher_usage=outcome.usage,
            teacher_calls=outcome.calls,
            student_usage=student_usage,
            fallback=fallback,
            confidence=decision.confidence,
            amount=decision.amount if decision.prediction else None,
            predicted=dict(decision.prediction.accuracy) if decision.prediction else None,
            written_chars=len(guidance.written) if guidance else 0,
            mode=self.settings.mode,
            call_id=self.settings.call_id,
            teacher_prompt_share=outcome.prompt_share,
            refusal=outcome.refusal,
        )
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=usage_of_answer(guidance, outcome.tool_reply, reply),
                response_metadata={
                    "model_name": self.settings.model_name,
                    "model_provider": provider_of(outcome.tool_reply),
                    "finish_reason": reason or "stop",
                    "gkt": gkt,
                },
                chunk_position="last",
            )
        )
