"""Models whose answers are rules: a teacher that calls tools, and a torch model that does."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from support.models.fakes import MODELS

# In the manner of Qwen's and Hermes' own templates.
TOOL_TEMPLATE = r"""
{%- if tools %}<|system|>Tools:
{%- for tool in tools %}{{ '\n' ~ (tool | tojson) }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}{{ '<|' ~ message.role ~ '|>' ~ (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
{{- (call.function.arguments | tojson) ~ '}\n</tool_call>' }}{% endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@tool
def note(words: str) -> str:
    """Write words down."""
    return f"noted {words}"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def arguments_for(schema: dict[str, Any], question: str) -> dict[str, Any]:
    """Fill a tool's required arguments from the numbers and quoted words of a question."""
    numbers = iter(re.findall(r"-?\d+", question))
    words = iter(re.findall(r"'([^']+)'", question) or [question])
    filled: dict[str, Any] = {}
    properties = schema.get("properties", {})
    for name in schema.get("required", properties):
        kind = properties[name].get("type")
        if kind == "integer":
            filled[name] = int(next(numbers, 3))
        elif kind == "number":
            filled[name] = float(next(numbers, 3))
        else:
            filled[name] = next(words, "some words")
    return filled


def decide(
    question: str, tools: list[dict[str, Any]], result: str | None, *, forced: bool = False
) -> str | dict[str, Any]:
    """Answer in words, or with the first tool whose use a question asks for."""
    if result is not None:
        return f"The tool was called and it says that the answer to this is: {result}."
    if tools and (forced or not re.match("(?i)(hello|hi)\\b", question)):
        named = [t["function"] for t in tools if t["function"]["name"] in question]
        tool = (named or [tools[0]["function"]])[0]
        return {
            "name": tool["name"],
            "arguments": arguments_for(tool.get("parameters") or {}, question),
        }
    return "Hello there, and well met. This is what I have to say about it, and no more than that."


class ToolTeacher(BaseChatModel):
    """Follows `decide`, counts a token per four characters and obeys its limit, as APIs do."""

    max_tokens: int | None = None
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    stream_usage: bool = True
    preamble: str = ""
    log: Any = Field(default=None, repr=False)

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **kwargs)

    def _reply(self, messages: list[BaseMessage], stop: Any, kwargs: dict[str, Any]) -> AIMessage:
        if self.log is not None:
            self.log.append({"messages": messages, "limit": self.max_tokens, **kwargs})
        choice = kwargs.get("tool_choice")
        tools = [] if choice == "none" else kwargs.get("tools") or []
        forced = choice not in (None, "auto", "none")
        tools = [t for t in tools if t["function"]["name"] == choice] or tools
        last = messages[-1]
        result = str(last.text) if isinstance(last, ToolMessage) else None
        decided = decide(str(last.text), tools, result, forced=forced)
        schema = next((str(m.text) for m in messages if "JSON schema" in str(m.text)), None)
        if schema:
            wanted = json.loads(schema.split("\n", 1)[1].split("\n\n")[0])
            decided = json.dumps(arguments_for(wanted, "'Why did the cat cross the road?'"))
        text = decided if isinstance(decided, str) else self.preamble
        raw = "" if isinstance(decided, str) else json.dumps(decided["arguments"])
        most = 10**9 if self.max_tokens is None else self.max_tokens * 4
        cut = len(text) + len(raw) > most
        text, raw = text[:most], raw[: max(0, most - len(text))]
        for end in stop or ():
            text = text.split(end)[0]
        calls: dict[str, Any] = {}
        if not isinstance(decided, str):
            try:
                calls["tool_calls"] = [
                    {"name": decided["name"], "args": json.loads(raw), "id": "call_1"}
                ]
            except ValueError:
                calls["invalid_tool_calls"] = [
                    {"name": decided["name"], "args": raw, "id": "call_1", "error": None}
                ]
        tokens = max(1, (len(text) + len(raw)) // 4)
        return AIMessage(
            text,
            **calls,
            usage_metadata={
                "input_tokens": 10,
                "output_tokens": tokens,
                "total_tokens": 10 + tokens,
            },
            response_metadata={
                "finish_reason": "length" if cut else "tool_calls" if calls else "stop",
                "model_name": "rules",
            },
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._reply(messages, stop, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        reply = self._reply(messages, stop, kwargs)
        for start in range(0, len(reply.text), 5):
            piece = str(reply.text)[start : start + 5]
            yield ChatGenerationChunk(message=AIMessageChunk(piece))
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                "",
                tool_calls=reply.tool_calls,
                invalid_tool_calls=reply.invalid_tool_calls,
                usage_metadata=reply.usage_metadata,
                response_metadata=reply.response_metadata,
                chunk_position="last",
            )
        )

    @property
    def _llm_type(self) -> str:
        return "tool-teacher"


class ScriptedConfig(PretrainedConfig):
    model_type = "gkt-scripted"
    num_hidden_layers = 1
    hidden_size = 1
    num_attention_heads = 1
    max_position_embeddings = 8192
    tokenizer_path = ""


class ScriptedModel(PreTrainedModel, GenerationMixin):
    """Reads its prompt back from its KV cache and writes what `decide` says."""

    config_class = ScriptedConfig

    def __init__(self, config: ScriptedConfig) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.script = AutoTokenizer.from_pretrained(config.tokenizer_path)
        self.spelled: dict[str, list[int]] = {}
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        pass

    def forward(self, input_ids, past_key_values=None, use_cache=True, logits_to_keep=1, **_):
        ids = input_ids.float()[:, None, :, None]
        keys, _ = past_key_values.update(ids, ids, 0)
        logits = torch.zeros(len(input_ids), 1, self.config.vocab_size)
        for row, seen in enumerate(keys[:, 0, :, 0].long().tolist()):
            logits[row, 0, self._next(seen)] = 30.0
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def _next(self, ids: list[int]) -> int:
        prompt, _, begun = self.script.decode(ids).rpartition("<|assistant|>")
        turns = re.findall(r"<\|(\w+)\|>(.*?)<\|end\|>", prompt, re.DOTALL)
        tools = [
            json.loads(line)
            for role, text in turns
            if role == "system" and text.startswith("Tools:")
            for line in text.splitlines()[1:]
        ]
        role, text = turns[-1]
        decided = decide(text, tools, text if role == "tool" else None)
        if not isinstance(decided, str):
            decided = f"<tool_call>\n{json.dumps(decided, ensure_ascii=False)}\n</tool_call>"
        header = self.script.convert_tokens_to_ids("<|assistant|>")
        written = len(ids) - 1 - ids[::-1].index(header)
        written_ids, wanted = ids[written + 1 :], self._ids(decided)
        if wanted[: len(written_ids)] == written_ids:  # also inside a character's bytes
            following = wanted[len(written_ids) :]
        else:
            following = self._ids(decided[len(begun) :] if decided.startswith(begun) else "")
        return following[0] if following else self.script.eos_token_id

    def _ids(self, text: str) -> list[int]:
        if text not in self.spelled:  # it is asked for at each token
            self.spelled[text] = list(self.script(text, add_special_tokens=False)["input_ids"])
        return self.spelled[text]


AutoConfig.register("gkt-scripted", ScriptedConfig)
AutoModelForCausalLM.register(ScriptedConfig, ScriptedModel)


def save_scripted(folder: Path) -> str:
    """Save a model that follows `decide`, with a tokenizer whose template knows tools."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template = TOOL_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = ScriptedConfig(
        vocab_size=len(tokenizer), tokenizer_path=str(folder), eos_token_id=tokenizer.eos_token_id
    )
    ScriptedModel(config).save_pretrained(folder)
    return str(folder)


class SayingModel(ScriptedModel):
    """Writes one text, whatever it is asked."""

    says: str = ""

    def _next(self, ids: list[int]) -> int:
        written = self.script.decode(ids)
        if "assistant" not in written:  # what the engine tries models with
            raise ValueError("no prompt")
        sizes = range(len(self.says), -1, -1)
        said = next(size for size in sizes if written.endswith(self.says[:size]))
        following = self._ids(self.says[said:])
        return following[0] if following else self.script.eos_token_id


def saying(folder: Path, says: str, template: str, marks: Sequence[str] = ()) -> Any:
    """Make a model that writes one text, and its tokenizer.

    Args:
        folder: Where the tokenizer is kept.
        says: The text.
        template: The chat template.
        marks: Control tokens that the tokenizer is to know besides its own.
    """
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks]})
    tokenizer.save_pretrained(folder)
    config = ScriptedConfig(
        vocab_size=len(tokenizer), tokenizer_path=str(folder), eos_token_id=tokenizer.eos_token_id
    )
    model = SayingModel(config)
    model.says = says
    return model, tokenizer
