"""The grammar that constrains the answer of a call, if any.

The grammar engine is an extra of this package, so it is imported when a call needs it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from langchain_gkt.structured_output.schema import schema_in
from langchain_gkt.students.backends.protocol import Backend, refuse_unsupported
from langchain_gkt.students.engine.token_healing import Seam
from langchain_gkt.students.settings import GenerationSettings
from langchain_gkt.texts.tool_text import CLOSE, OPEN

if TYPE_CHECKING:
    from langchain_gkt.structured_output.constraint import GrammarConstraint, GrammarTokenizer


class DecodingConstraints:
    """Builds the constraints of the answers of one engine."""

    def __init__(self, engine: Backend) -> None:
        """Prepare, without loading the grammar engine."""
        self._engine = engine

    @cached_property
    def _tokenizer(self) -> GrammarTokenizer:
        from langchain_gkt.structured_output.constraint import GrammarTokenizer

        engine = self._engine
        return GrammarTokenizer(engine.tokenizer, engine.end_ids, engine.vocabulary)

    def for_call(
        self,
        settings: GenerationSettings,
        *,
        begun: str,
        max_tokens: int,
        seam: Seam | None = None,
    ) -> GrammarConstraint | None:
        """Return a constraint that serves one answer alone, or None if any text will do.

        Args:
            settings: The settings of the call.
            begun: The part of the answer that is already written.
            max_tokens: Tokens that are left for the rest.
            seam: How the model spells the end of ``begun`` again, if it does.

        Raises:
            ImportError: If llguidance (extra ``structured``) is missing.
            ValueError: If the schema or a tool's parameters cannot be enforced.
        """
        grammar = self._grammar(settings)
        if grammar is None:
            return None
        from langchain_gkt.structured_output.constraint import GrammarConstraint

        return GrammarConstraint(
            self._tokenizer,
            grammar,
            begun=begun,
            max_tokens=max_tokens,
            spelled=seam.spelled if seam else b"",
            spelled_tokens=seam.opened if seam else 0,
            may_be_cut=not settings.is_held,
        )

    def shortest_answer(self, settings: GenerationSettings) -> int:
        """Return how many tokens the shortest answer of a call takes. 0 if any text will do.

        It raises the errors of `for_call`.
        """
        grammar = self._grammar(settings)
        return 0 if grammar is None else self._tokenizer.shortest_answer(grammar)

    def _grammar(self, settings: GenerationSettings) -> str | None:
        tool, tools = settings.required_tool, settings.offered_tools or ()
        if tool is not None or settings.response_format:
            refuse_unsupported(self._engine, "response_format", None)
        elif not (settings.hold_calls and tools) or "response_format" in self._engine.unsupported:
            return None
        from langchain_gkt.structured_output.grammar import json_grammar, tool_grammar, turn_grammar

        if tool is not None:
            if getattr(self._engine.tokenizer, "response_template", None):
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
        return [mark for mark in (OPEN, CLOSE) if self._tokenizer.is_added(mark)]
