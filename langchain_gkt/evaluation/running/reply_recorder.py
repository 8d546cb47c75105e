"""A cost tracker that also records the teacher's reply, for one evaluated answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from langchain_core.outputs import LLMResult

from langchain_gkt.costs import CostTracker
from langchain_gkt.costs.usage import message_of
from langchain_gkt.evaluation.running.records import TeacherReply, part_of
from langchain_gkt.teachers.replies import finish_reason
from langchain_gkt.teachers.token_cuts import logprob_pieces


class ReplyRecorder(CostTracker):
    """Hands over the teacher's reply as soon as it ends, because from then on it is billed.

    Attributes:
        reply: The teacher's last reply. None before there is one.
    """

    def __init__(self, on_reply: Callable[[TeacherReply], None], **prices: Any) -> None:
        """Start without a reply."""
        super().__init__(keep_calls=True, **prices)
        self._on_reply = on_reply
        self._teacher_runs: set[UUID] = set()
        self.reply: TeacherReply | None = None

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: Any = None, **kwargs: Any
    ) -> None:
        """Note which runs are the teacher's."""
        if (metadata or {}).get("gkt_role") == "teacher":
            self._teacher_runs.add(run_id)
        super().on_chat_model_start(
            serialized, messages, run_id=run_id, metadata=metadata, **kwargs
        )

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Hand over the reply if the run was the teacher's."""
        super().on_llm_end(response, run_id=run_id, **kwargs)  # counts its cost first
        message = message_of(response)
        if run_id not in self._teacher_runs or message is None:
            return
        usage: Any = message.usage_metadata
        self.reply = TeacherReply(
            text=str(message.text),
            usage=usage,
            finish_reason=finish_reason(message),
            pieces=logprob_pieces(message),
            part=part_of(self.calls, "teacher"),
            cut=(message.response_metadata.get("recorded") or {}).get("cut"),
        )
        self._on_reply(self.reply)
