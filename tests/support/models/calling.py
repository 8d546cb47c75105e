"""A student and a teacher whose turns are written down, and a ledger of what each was paid."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_gkt import CostReport, Price
from langchain_gkt.students.protocol import Student

PRICE = Price(input_mtok="1000", output_mtok="2000")  # 0.001 and 0.002 dollars a token


@tool
def weather(city: str, days: int = 1, unit: str = "C") -> str:
    """Say what the weather will be."""
    return f"{city}: {days} days of sun, 20 {unit}"


@tool
def pay(amount: float, to: str) -> str:
    """Send money."""
    return f"paid {amount} to {to}"


def call(name: str, **arguments: Any) -> str:
    """A call as Hermes and Qwen write it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class _Written(BaseChatModel):
    """Says what it is told to; notes in the ledger what that costs."""

    says: Any = None
    """A function from the messages and the number of the sample to a text or an AIMessage."""
    ledger: Any = None
    asked: Any = None
    max_tokens: int | None = None
    temperature: float | None = None

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        formatted = [convert_to_openai_tool(one) for one in tools]
        return self.bind(tools=formatted, **chosen, **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        said = self.says(messages, kwargs.get("seed", 0))
        if isinstance(said, Exception):
            raise said
        message = AIMessage(said) if isinstance(said, str) else said
        used = 5 + len(message.tool_calls) * 10
        usage = {"input_tokens": 20, "output_tokens": used, "total_tokens": 20 + used}
        metadata = {"finish_reason": "stop", **message.response_metadata}
        message = message.model_copy(
            update={"usage_metadata": usage, "response_metadata": metadata}
        )
        self.ledger.append((20, used))
        if self.asked is not None:
            self.asked.append({"messages": messages, "limit": self.max_tokens, **kwargs})
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "written"


class WrittenTeacher(_Written):
    """A teacher that reports its usage, and streams in one piece."""

    stream_usage: bool = True

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any):
        whole = self._generate(messages, stop, run_manager, **kwargs).generations[0].message
        fields = {"content", "tool_calls", "usage_metadata", "response_metadata"}
        chunk = AIMessageChunk(**whole.model_dump(include=fields), chunk_position="last")
        yield ChatGenerationChunk(message=chunk)


class WrittenStudent(Student, _Written):
    """A student whose samples are told apart by their number."""

    def sample_arguments(self, index: int) -> dict[str, Any]:
        return {"seed": index}


def samples(*texts: Any) -> Callable[[Any, int], Any]:
    """Say the text of a sample's number, whatever is asked."""
    return lambda messages, index: texts[index % len(texts)]


def check_bill(report: CostReport, teacher: Any, student: Any) -> None:
    """Compare a bill with what the models have noted."""
    for bill, model in ((report.teacher, teacher), (report.student, student)):
        assert bill.calls == len(model.ledger)
        assert bill.prompt_tokens == sum(prompt for prompt, _ in model.ledger)
        assert bill.completion_tokens == sum(written for _, written in model.ledger)
