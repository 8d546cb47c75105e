"""The teacher's output in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGenerationChunk

from langchain_gkt.chain.messages import text_blocks, text_chunk
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.errors import bounded
from langchain_gkt.guidance import Guidance
from langchain_gkt.teachers import replies
from langchain_gkt.teachers.refusals import Refusal, TeacherRefused
from langchain_gkt.texts.reasoning import without_reasoning


@dataclass(kw_only=True)
class TeacherOutcome:
    """The teacher's output in one call, possibly in two attempts.

    Attributes:
        guidance: The guidance. None before it is read, and for a tool call.
        tool_reply: The reply with the tool call, if there was one.
        calls: How often the teacher was asked.
        tokens: Its completion tokens.
        usage: Its usage. None if it reported none.
        prompt_tokens: Tokens of its largest prompt.
        estimated: Whether ``tokens`` is partly a guess, because usage was not reported.
        shown: The text that has already been shown to the caller.
        block: The content block at its end. None for plain text.
        fallback: Why the student had to answer without guidance, or None.
        prompt_share: The result of `callbacks.usage.prompt_share`.
        refusal: Its refusal, with the reason. None if it did not refuse.
    """

    guidance: Guidance | None = None
    tool_reply: AIMessage | None = None
    calls: int = 0
    tokens: int = 0
    usage: UsageMetadata | None = None
    prompt_tokens: int = 0
    estimated: bool = False
    shown: str = ""
    block: Mapping[str, Any] | None = None
    fallback: str | None = None
    prompt_share: float | None = None
    refusal: str | None = None

    def show(self, text: str, reply: AIMessage | None = None) -> Iterator[ChatGenerationChunk]:
        """Make chunks of text that follows the shown text.

        The reply is the teacher's that holds it, or the part of it so far. None for another origin.
        """
        if reply is None:
            yield text_chunk(text, self.block)
        else:
            for part, block in text_blocks(text, reply, len(self.shown), self.block):
                self.block = block
                yield text_chunk(part, block)
        self.shown += text

    def count(self, reply: AIMessage) -> None:
        """Add the tokens of a reply."""
        self.tokens += replies.completion_tokens(reply)
        self.estimated |= not reply.usage_metadata
        if reply.usage_metadata:
            self.usage = add_usage(self.usage, reply.usage_metadata)
            self.prompt_tokens = max(self.prompt_tokens, reply.usage_metadata["input_tokens"])

    def keep_shown(self) -> None:
        """Turn the text shown before the teacher failed into guidance. The student continues it."""
        if self.shown:
            count = max(1, len(self.shown) // 4)
            self.tokens, self.estimated = self.tokens + count, True
            self.guidance = Guidance(
                text=self.shown, token_count=count, written=self.shown, estimated=True
            )

    def refused(self, reply: AIMessage, refusal: Refusal, settings: CallSettings) -> Guidance:
        """Turn a refusal into an answer that the user sees, or into a beginning for the student.

        Raises:
            TeacherRefused: If the user should see it, and it has no words or the call asked for an
                object.
        """
        self.refusal, shown = bounded(str(refusal)), self.shown
        guidance = Guidance(
            text=shown,
            token_count=replies.completion_tokens(reply),
            finish_reason=replies.finish_reason(reply),
            usage=reply.usage_metadata,
            written=str(reply.text),
            dropped=None if shown else 0,
        )
        if settings.on_refusal == "student" and settings.strategy.student_may_answer:
            self.fallback = f"the teacher refused: {self.refusal}"
            return guidance
        if settings.response_format or not (refusal.text.strip() or shown):
            raise TeacherRefused(
                f"the teacher refused to answer ({self.refusal})", hint=TeacherRefused.hint
            )
        text = without_reasoning(refusal.text)
        if not text.startswith(shown):
            text = f"{shown}\n\n{text}" if text else shown
        return replace(guidance, text=text, complete=True, dropped=None)
