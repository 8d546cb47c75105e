"""The state of one call's answer, and the chunk that ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage, subtract_usage
from langchain_core.outputs import ChatGenerationChunk

from langchain_gkt.chain.callbacks.usage import usage_of_answer
from langchain_gkt.chain.messages import provider_of
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.teacher_outcome import TeacherOutcome
from langchain_gkt.gates import Amount
from langchain_gkt.metadata import GKTMetadata
from langchain_gkt.teachers.replies import finish_reason


@dataclass(kw_only=True)
class Answer:
    """The state of one call's answer. Fields named as those of `GKTMetadata` mean the same.

    Attributes:
        settings: The settings of the call. A strategy may continue with changed ones.
        messages: The conversation.
        streaming: Whether the models are streamed.
        reserved: Minimum tokens of the answer that the student needs. See `prepared`.
        outcome: The teacher's output.
        reply: The student's reply. None if it wrote nothing.
        other_usage: The student's usage besides its reply. None for none.
        draft_prompt_tokens: The prompt of its first replies that are not the answer's end.
        teacher_failed: Whether the teacher has failed or refused in this call.
        in_answer: How many of the teacher's tokens are part of the answer. None for all.
        expected: The gate's expected share of right answers, by amount. None if it expects none.
    """

    settings: CallSettings
    messages: list[BaseMessage]
    streaming: bool
    reserved: int = 0
    outcome: TeacherOutcome = field(default_factory=TeacherOutcome)
    reply: AIMessage | None = None
    other_usage: UsageMetadata | None = None
    draft_prompt_tokens: int = 0
    fallback: str | None = None
    teacher_failed: bool = False
    signals: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None
    vote_fallback: str | None = None
    in_answer: int | None = None
    amount: Amount | None = None
    expected: Mapping[Amount, float] | None = None

    @property
    def is_teachers(self) -> bool:
        """Whether the student has failed and the turn is left to the teacher."""
        return not self.settings.strategy.asks_student

    def add_usage(self, usage: UsageMetadata | None) -> None:
        """Add usage besides its reply, if it was reported."""
        if usage:
            self.other_usage = add_usage(self.other_usage, usage)

    def note_drafts(self, replies: Sequence[AIMessage]) -> None:
        """Count the usage of the student's replies that are not the answer's end."""
        usages = [reply.usage_metadata for reply in replies if reply.usage_metadata]
        if not self.draft_prompt_tokens:  # later ones may have guidance in their prompts
            self.draft_prompt_tokens = max((usage["input_tokens"] for usage in usages), default=0)
        for usage in usages:
            self.add_usage(usage)

    def take(self, reply: AIMessage) -> None:
        """Make one of the replies counted by `note_drafts` the answer's end."""
        self.reply = reply
        if reply.usage_metadata:
            self.other_usage = subtract_usage(self.other_usage, reply.usage_metadata)


def last_chunk(answer: Answer) -> ChatGenerationChunk:
    """Make the chunk that carries usage and metadata, and no text. Every strategy ends with it."""
    outcome, reply, settings = answer.outcome, answer.reply, answer.settings
    student_usage = answer.other_usage
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
        fallback=answer.fallback,
        confidence=answer.signals.get("confidence"),
        amount=answer.amount,
        predicted=dict(answer.expected) if answer.expected else None,
        written_chars=len(guidance.written) if guidance else 0,
        mode=settings.mode,
        strategy=settings.mode,
        signals=answer.signals,
        agreement=answer.agreement,
        vote_fallback=answer.vote_fallback,
        call_id=settings.call_id,
        teacher_prompt_share=outcome.prompt_share,
        refusal=outcome.refusal,
    )
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            usage_metadata=usage_of_answer(
                guidance,
                outcome.tool_reply,
                reply,
                prompt_share=outcome.prompt_share,
                prompt_tokens=outcome.prompt_tokens if reply else answer.draft_prompt_tokens,
            ),
            response_metadata={
                "model_name": settings.model_name,
                "model_provider": provider_of(outcome.tool_reply),
                "finish_reason": reason or "stop",
                "gkt": gkt,
            },
            chunk_position="last",
        )
    )
