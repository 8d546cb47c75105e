"""A teacher that costs nothing, a handler that remembers, and chains made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

import langchain_gkt
from langchain_gkt import GuidedKnowledgeTransferChain

MODELS = Path(langchain_gkt.__file__).parent / "demo" / "models"


def make(teacher: Any, student: Any, **fields: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)


def limit_inside(plan: str, solution: str) -> int:
    """A limit, in characters, that stops three characters into the step after the plan."""
    assert solution[: len(plan)] == plan
    return len(plan) + 3


class WordTeacher(BaseChatModel):
    """A teacher that knows one answer, counts a token per character, and obeys its limit."""

    answer: str = ""
    num_predict: int | None = None
    obeys: bool = True
    temperature: float | None = None
    reports_usage: bool = True
    fails_with: Any = None
    # Shared by the copies that limits are set on. Each run writes down its model, as text.
    asked: Any = Field(default=[], repr=False)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append({"messages": messages, "limit": self.num_predict, **kwargs})
        if self.fails_with:
            raise self.fails_with
        text = self.answer[: self.num_predict] if self.obeys else self.answer
        usage = {
            "input_tokens": 7,
            "output_tokens": len(text),
            "total_tokens": 7 + len(text),
        }
        message = AIMessage(
            text,
            usage_metadata=usage if self.reports_usage else None,
            response_metadata={"finish_reason": "stop" if text == self.answer else "length"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "word-teacher"


class Recorder(BaseCallbackHandler):
    """Writes down every chat model run it hears of."""

    run_inline = True

    def __init__(self) -> None:
        self.runs: dict[Any, dict[str, Any]] = {}
        self.ended: list[Any] = []

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **kwargs):
        assert run_id not in self.runs, "a run started twice"
        self.runs[run_id] = {"id": run_id, "parent": parent_run_id, "end": None, **kwargs}

    def on_llm_end(self, response, *, run_id, **kwargs):
        self.runs[run_id]["end"] = "ok"
        self.runs[run_id]["usage"] = response.generations[0][0].message.usage_metadata
        self.ended.append(run_id)

    def on_llm_error(self, error, *, run_id, **kwargs):
        self.runs[run_id]["end"] = type(error).__name__
        self.ended.append(run_id)

    def by_role(self, role: str | None) -> list[dict[str, Any]]:
        return [r for r in self.runs.values() if r["metadata"].get("gkt_role") == role]
