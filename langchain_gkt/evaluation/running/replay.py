"""A teacher that repeats a recorded reply, up to any number of its own tokens."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from langchain_gkt.evaluation.running.records import TeacherReply
from langchain_gkt.teachers.token_cuts import CutReply, TokenSplitter


class ReplayedReply(CutReply):
    """A recorded reply that can be cut after any number of tokens."""

    def __init__(self, recorded: TeacherReply, splitter: TokenSplitter | None = None) -> None:
        """Find the tokens' ends, with the splitter if the reply does not hold them."""
        pieces = [bytes.fromhex(piece) for piece in recorded.pieces or ()]
        super().__init__(recorded.text, usage=recorded.usage, pieces=pieces, splitter=splitter)
        if self.method == "approximate" and recorded.cut == "guessed":
            self.method = "guessed"  # its token count was the guess
        self.recorded = recorded


class ReplayTeacher(BaseChatModel):
    """A chat model that returns a recorded reply. One model for each question."""

    reply: Any = Field(repr=False)
    """The `ReplayedReply`."""
    max_tokens: int | None = None
    """Maximum completion tokens. The chain sets it."""

    @property
    def _llm_type(self) -> str:
        return "gkt-replay"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        recorded: TeacherReply = self.reply.recorded
        limit = self.reply.tokens if self.max_tokens is None else self.max_tokens
        text, tokens, complete = self.reply.cut(limit)
        usage: Any = dict(recorded.usage or {"input_tokens": recorded.part.prompt_tokens})
        if not complete or not recorded.usage:
            usage |= {"output_tokens": tokens, "total_tokens": usage["input_tokens"] + tokens}
            if self.reply.reasoning:
                hidden = min(tokens, self.reply.reasoning)
                usage["output_token_details"] = {"reasoning": hidden}
        message = AIMessage(
            text,
            usage_metadata=usage,
            response_metadata={"finish_reason": recorded.finish_reason if complete else "length"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)
