"""Messages and the settings of a call -> a request of the engine.

The grammar engine is an extra of this package, so it is imported when a call needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import ModelProfile
from langchain_core.messages import BaseMessage

from langchain_gkt.errors import StudentError
from langchain_gkt.structured_output.schema import schema_in, with_instruction
from langchain_gkt.students.backends.protocol import Backend, RemoteBackend, refuse_unsupported
from langchain_gkt.students.engine.requests.request import Request
from langchain_gkt.students.engine.token_healing import Seam
from langchain_gkt.students.generation import Generation
from langchain_gkt.students.prompting import PromptBuilder, WrittenPrompt
from langchain_gkt.students.settings import GenerationSettings
from langchain_gkt.students.tool_parsing import AnswerParser, keeps_marks
from langchain_gkt.texts.begun_answer import begun_text
from langchain_gkt.texts.tool_text import CLOSE, OPEN

if TYPE_CHECKING:
    from langchain_gkt.structured_output.constraint import GrammarConstraint, GrammarTokenizer


class RequestBuilder:
    """Builds the requests of one loaded student."""

    def __init__(self, engine: Backend, prompts: PromptBuilder) -> None:
        """Serve the engine of a student, whose conversations ``prompts`` tokenises."""
        self.engine, self.prompts = engine, prompts

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the state of the grammar engine, which is made again when needed."""
        return type(self), (self.engine, self.prompts)

    def profile(self, max_tokens: int) -> ModelProfile:
        """Return the model's limits and abilities, for answers of so many tokens."""
        window, knows_tools = self.engine.window.size, self.prompts.knows_tools
        profile = ModelProfile(
            max_output_tokens=min(max_tokens, window or max_tokens),
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            open_weights=True,
            tool_calling=knows_tools,
            tool_choice=knows_tools,
            structured_output=False,
            temperature=True,
        )
        if window:
            profile["max_input_tokens"] = window
        return profile

    def check(
        self, messages: Sequence[BaseMessage], settings: GenerationSettings, *, reserve: int
    ) -> int:
        """Refuse what the model cannot answer. See `Student.check`."""
        if self.engine.closed:
            raise StudentError("the student is closed; make a new one")
        self.tokenize(messages, settings, reserve=reserve, direct=bool(reserve))
        if isinstance(self.engine, RemoteBackend):
            self.engine.refuse_unreachable()
        grammar = self._grammar(settings)
        return 0 if grammar is None else self._grammar_tokenizer.shortest_answer(grammar)

    def build(
        self,
        messages: Sequence[BaseMessage],
        settings: GenerationSettings,
        *,
        heal: bool = True,
        direct: bool = False,
    ) -> Request:
        """Build the request of one call.

        Args:
            messages: The conversation. A trailing AIMessage is the beginning of the answer.
            settings: The settings of the call.
            heal: Whether the model spells the end of that beginning again.
            direct: Whether the answer begins without reasoning.
        """
        written = self.tokenize(messages, settings, direct=direct)
        return self._request(written, messages, settings, heal=heal)

    def _request(
        self,
        written: WrittenPrompt,
        messages: Sequence[BaseMessage],
        settings: GenerationSettings,
        *,
        heal: bool = True,
    ) -> Request:
        prompt, answer_prefix, _ = written
        max_tokens, engine = settings.max_tokens, self.engine
        if (context := engine.window.size) is not None:
            max_tokens = min(max_tokens, context - engine.window.used(prompt, answer_prefix))
        begun = (begun_text(messages) or "").lstrip()
        if begun or self._has_parts:  # text before a call is no part of its grammar
            settings = replace(settings, hold_calls=False)
        seam = engine.spelling.seam(answer_prefix) if answer_prefix and heal else None
        if settings.is_held and seam and not begun.encode().endswith(seam.spelled):
            seam = None  # it reopens whitespace before the answer, which no grammar knows
        constraint = self._constraint(settings, begun, max_tokens, seam)
        if constraint is not None:
            max_tokens = constraint.max_tokens
        stop, schema = settings.stop, None
        if self.prompts.writes_frame(messages):
            stop = (*stop, "\nQ:")  # the student must not ask the next question
        if settings.response_format and not begun and not settings.required_tool:
            schema = schema_in(settings.response_format)
        return Request(
            prompt=prompt,
            answer_prefix=answer_prefix,
            max_tokens=max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=settings.seed,
            # A grammar ends its text itself. A stop string must not cut a tool call or reasoning.
            stop=() if constraint or self._stops_itself(settings) else stop,
            constraint=constraint,
            schema=schema,
            keep_special=constraint is None and self._keeps_marks,
            seam=seam,
        )

    def _constraint(
        self, settings: GenerationSettings, begun: str, max_tokens: int, seam: Seam | None
    ) -> GrammarConstraint | None:
        """Return what constrains one answer to its form. None if any text will do."""
        grammar = self._grammar(settings)
        if grammar is None:
            return None
        from langchain_gkt.structured_output.constraint import GrammarConstraint

        return GrammarConstraint(
            self._grammar_tokenizer,
            grammar,
            begun=begun,
            max_tokens=max_tokens,
            spelled=seam.spelled if seam else b"",
            spelled_tokens=seam.opened if seam else 0,
            may_be_cut=not settings.is_held,
        )

    def _grammar(self, settings: GenerationSettings) -> str | None:
        tool, tools = settings.required_tool, settings.offered_tools or ()
        if tool is not None or settings.response_format:
            refuse_unsupported(self.engine, "response_format", None)
        elif not (settings.hold_calls and tools) or "response_format" in self.engine.unsupported:
            return None
        from langchain_gkt.structured_output.grammar import json_grammar, tool_grammar, turn_grammar

        if tool is not None:
            if getattr(self.engine.tokenizer, "response_template", None):
                raise ValueError(
                    f"tool_choice={tool!r} needs a student that calls tools in the Hermes "
                    "format; this one's response_template has a format of its own. Leave "
                    "tool_choice out, or the call to a teacher (on_teacher_error='raise')"
                )
            name = None if tool == "any" else tool
            return tool_grammar(tools, name, single_tokens=self._added_marks)
        if settings.response_format:
            return json_grammar(schema_in(settings.response_format))
        try:
            return turn_grammar(tools, single_tokens=self._added_marks)
        except ValueError:  # calls are checked when they are written
            return None

    @property
    def _added_marks(self) -> list[str]:
        return [mark for mark in (OPEN, CLOSE) if self._grammar_tokenizer.is_added(mark)]

    @cached_property
    def _grammar_tokenizer(self) -> GrammarTokenizer:
        from langchain_gkt.structured_output.constraint import GrammarTokenizer

        engine = self.engine
        return GrammarTokenizer(engine.tokenizer, engine.end_ids, engine.vocabulary)

    def build_probe(self, student: Any, messages: Sequence[BaseMessage], tokens: int) -> Request:
        """Build the request of an answer's first tokens, each the likeliest."""
        if self.engine.first_token_detail == "none":
            raise NotImplementedError(
                f"backend={self.engine.name!r} does not report the probabilities of tokens; use "
                "another backend, such as 'torch'"
            )
        greedy = GenerationSettings.of_call(student, max_tokens=tokens, temperature=0.0)
        return self.build(messages, greedy, direct=True)

    def generation(
        self, messages: Sequence[BaseMessage], settings: GenerationSettings, model_name: str
    ) -> Generation:
        """Build the request of one call, and the generation that turns its answer into chunks."""
        written = self.tokenize(messages, settings)
        request = self._request(written, messages, settings)
        parser = None
        if request.constraint is None or settings.offered_tools:
            parser = AnswerParser(
                self.engine.tokenizer,
                self.prompts.template,
                written,
                settings.offered_tools or (),
                # The engine searches for the others, so that it ends at the first of them.
                settings.stop if self._stops_itself(settings) else (),
                is_held=request.constraint is not None,
            )
        return Generation(self.engine, request, parser, model_name=model_name)

    def _stops_itself(self, settings: GenerationSettings) -> bool:
        """Whether only the parsed answer is searched for stop strings, not the engine's text."""
        return bool(settings.offered_tools) or self._has_parts

    @property
    def _keeps_marks(self) -> bool:
        return keeps_marks(self.engine.tokenizer, self.prompts.template)

    @property
    def _has_parts(self) -> bool:
        """Whether an answer may hold more than text and calls, such as reasoning."""
        return self._keeps_marks or self.prompts.template.reasons

    def tokenize(
        self,
        messages: Sequence[BaseMessage],
        settings: GenerationSettings,
        *,
        reserve: int = 0,
        direct: bool = False,
    ) -> WrittenPrompt:
        """Tokenise a conversation, truncated if it is too long and the settings allow it.

        Args:
            messages: The conversation.
            settings: The settings of the call.
            reserve: Tokens that will be added to the beginning of the answer.
            direct: Whether the answer begins without reasoning. One that must keep to a form does.

        Raises:
            ValueError: If it is empty, leaves the context no room, or holds more than text.
        """
        if settings.response_format:
            messages = with_instruction(messages, schema_in(settings.response_format))
        if settings.seed is not None:
            refuse_unsupported(self.engine, "seed", settings.seed)
        window, tools = self.engine.window, settings.offered_tools
        how: dict[str, Any] = {
            "template_kwargs": settings.chat_template_kwargs,
            "direct": direct or settings.is_held,
        }
        written = self.prompts.write(messages, tools, **how)
        if window.size is not None and settings.on_long_prompt == "truncate":
            limit = window.size - min(settings.max_tokens, window.size // 4)
            if window.is_encoder_decoder:  # the encoder has a context for the prompt alone
                limit = window.size + len(written.answer_prefix)
            if len(written.ids) + len(written.answer_prefix) > limit:
                written = self.prompts.build_truncated(messages, tools, limit, **how)
            reserve = 0
        window.refuse_long(written.ids, written.answer_prefix, reserve)
        highest = max((*written.ids, *written.answer_prefix), default=0)
        if highest >= self.engine.vocabulary:
            word = self.engine.tokenizer.convert_ids_to_tokens(highest)
            raise ValueError(
                f"messages hold the token {word!r} (id {highest}), which the model lacks; "
                "take it out of the messages, or of allowed_added_tokens"
            )
        return written
