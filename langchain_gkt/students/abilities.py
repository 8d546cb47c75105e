"""What a student does beyond text: tool calls, objects of a schema, and how sure it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import run_in_executor
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from langchain_gkt.structured_output.schema import Method, binding, schema_in, structured
from langchain_gkt.students.engine.engine import Engine, Request, TokenChunk
from langchain_gkt.students.engine.sampling import TokenProbabilityRecorder
from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.tool_parsing import CallReader

if TYPE_CHECKING:
    from langchain_gkt.structured_output.grammar import Constraint, Vocabulary


class ToolsAndSchemas(BaseChatModel):
    """The part of `HuggingFaceStudent` that binds tools and schemas, and knows how sure it is."""

    _vocabulary: Vocabulary | None = PrivateAttr(default=None)

    @property
    def name_for_people(self) -> str:
        """The model's folder, hub id or class."""
        raise NotImplementedError

    def _load(self) -> tuple[Engine, PromptBuilder]:
        raise NotImplementedError

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Engine, Request]:
        raise NotImplementedError

    # --- how sure it is ---

    def probe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Say how likely the first tokens are of the answer the model would begin by itself.

        Args:
            messages: The conversation.
            tokens: How many tokens, greedily chosen. The first is known once the prompt is
                prefilled, whose KV cache is kept for the answer; each more is a decoding step.

        Returns:
            Their probabilities; fewer where the answer ends before.
        """
        engine, request, noted = self._probe(messages, tokens)
        for _ in engine.generate(request, threading.Event(), stream=False):
            pass
        return noted.probabilities

    async def aprobe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Do what `probe` does, on the event loop.

        Args:
            messages: The conversation.
            tokens: How many tokens.

        Returns:
            Their probabilities.
        """
        engine, request, noted = await run_in_executor(None, self._probe, messages, tokens)
        async for _ in engine.agenerate(request, stream=False):
            pass
        return noted.probabilities

    def _probe(
        self, messages: list[BaseMessage], tokens: int
    ) -> tuple[Engine, Request, TokenProbabilityRecorder]:
        sampling = {"max_tokens": tokens, "temperature": 0.0}
        engine, request = self._request(messages, None, sampling)
        noted = TokenProbabilityRecorder()
        return engine, replace(request, constraint=noted, stop=()), noted

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template has a place for tools."""
        return self._load()[1].knows_tools

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools, in the format of its chat template.

        Args:
            tools: Tools in any form LangChain knows.
            tool_choice: ``auto``, ``none``, ``any`` (or ``required``, True), or a tool's name.
                A tool that must be called is held to its schema (extra ``structured``).
            strict: Taken for compatibility; whether a call is held to its schema is said above.
            **kwargs: Further arguments of each call.

        Returns:
            The model with the tools bound.

        Raises:
            NotImplementedError: If the chat template has no place for tools.
        """
        if not self.knows_tools:
            raise NotImplementedError(
                f"the chat template of student {self.name_for_people!r} has no place for tools; "
                "use a model that was trained to call them, or leave the calls to the teacher"
            )
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=formatted, **chosen, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with an object of a schema; every answer is held to it, token by token.

        Args:
            schema: A pydantic class, a TypedDict class or a JSON schema.
            include_raw: Whether to return ``raw``, ``parsed`` and ``parsing_error``.
            method: ``json_schema`` or ``json_mode``, which are one here, or
                ``function_calling``, for a template that knows tools.
            strict: Taken for compatibility; the answer always keeps to the schema.
            **kwargs: Further arguments of each call.

        Returns:
            A runnable giving objects of the schema.

        Raises:
            ImportError: If llguidance (extra ``structured``) is missing.
            ValueError: If the schema cannot be enforced.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        from langchain_gkt.structured_output.grammar import json_grammar

        bound = binding(schema, method)
        json_grammar(schema_in(bound["response_format"]))  # refuses now what fails later
        return structured(self.bind(**bound, **kwargs), schema, include_raw=include_raw)

    def _constraint(self, grammar: str, *, begun: str, max_tokens: int) -> Constraint:
        from langchain_gkt.structured_output.grammar import Constraint

        vocabulary = self._load_vocabulary()
        return Constraint(vocabulary, grammar, begun=begun, max_tokens=max_tokens)

    def _load_vocabulary(self) -> Vocabulary:
        from langchain_gkt.structured_output.grammar import Vocabulary

        if self._vocabulary is None:
            engine = self._load()[0]
            self._vocabulary = Vocabulary(engine.tokenizer, engine.end_ids, engine.vocabulary)
        return self._vocabulary

    def _grammar(self, given: dict[str, Any]) -> str | None:
        """Return what the answer is held to, if to anything."""
        choice = given["tool_choice"]
        if isinstance(choice, dict):
            choice = choice.get("function", {}).get("name") or choice.get("type", "auto")
        if given["tools"] and choice not in (None, False, "auto", "none"):
            from langchain_gkt.structured_output.grammar import tool_grammar

            if getattr(self._load()[1].tokenizer, "response_template", None):
                raise ValueError(
                    f"tool_choice={choice!r} needs a student that calls tools in the Hermes "
                    "format; this one's response_template has a format of its own"
                )
            return tool_grammar(
                given["tools"], None if choice in ("any", "required", True) else choice
            )
        if given["response_format"]:
            from langchain_gkt.structured_output.grammar import json_grammar

            return json_grammar(schema_in(given["response_format"]))
        return None

    def _chunk(self, piece: TokenChunk, request: Request) -> ChatGenerationChunk:
        if piece.finish_reason is None:
            return ChatGenerationChunk(message=AIMessageChunk(content=piece.text))
        prompt_tokens = len(request.prompt) + len(request.prefill)
        usage = UsageMetadata(
            input_tokens=prompt_tokens,
            output_tokens=piece.tokens,
            total_tokens=prompt_tokens + piece.tokens,
        )
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=piece.text,
                usage_metadata=usage,
                response_metadata={
                    "finish_reason": piece.finish_reason,
                    "model_name": self.name_for_people,
                    "model_provider": "huggingface-local",
                },
                chunk_position="last",
            )
        )

    def _readers(
        self, request: Request, stop: tuple[str, ...], tools: Sequence[dict[str, Any]] | None
    ) -> Callable[[TokenChunk], ChatGenerationChunk]:
        """Return what turns pieces into chunks: with tools, text and tool calls apart."""
        if not tools:
            return lambda piece: self._chunk(piece, request)
        begun = [*request.prompt, *request.prefill]
        reader = CallReader(self._load()[1].tokenizer, begun, list(tools), stop)

        def chunk(piece: TokenChunk) -> ChatGenerationChunk:
            text, calls, stopped = reader.read(piece.text, last=bool(piece.finish_reason))
            reason = "stop" if stopped else piece.finish_reason
            made = self._chunk(replace(piece, text=text, finish_reason=reason), request)
            if calls:
                fields = made.message.model_dump(exclude={"type"})
                if reason == "stop":
                    fields["response_metadata"]["finish_reason"] = "tool_calls"
                made.message = AIMessageChunk(**{**fields, "tool_call_chunks": calls})
            return made

        return chunk
