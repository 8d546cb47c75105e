"""Ray's vLLM processor as the student: what it is given of a row, and what is made of its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.bulk.chains import read_prompt, settings_of, unpack_chain
from langchain_gkt.bulk.columns import RowResult, add_columns
from langchain_gkt.bulk.stages import StageSettings, read_result, spend_student
from langchain_gkt.chain.messages import RepeatedWhitespace
from langchain_gkt.costs.prices import FREE, price_call
from langchain_gkt.costs.totals import UsageTotals
from langchain_gkt.costs.usage import Tokens
from langchain_gkt.evaluation.running.records import ModelUsage

if TYPE_CHECKING:
    import pyarrow

WRITTEN, KEPT = "__gkt_written", "__gkt_kept"
"""Columns behind the processor: what the engine wrote, and which columns the row had."""

_ENGINE_ERROR = "__inference_error__"
_DEFAULT_MAX_TOKENS = 256


class EngineRequest:
    """Makes a row of the processor: the guidance is a trailing assistant message.

    Ray's chat-template stage continues it (``continue_final_message``), and does not begin a new
    one.
    """

    def __init__(self, settings: StageSettings) -> None:
        """Read the chain's settings.

        Args:
            settings: What to ask, and how.
        """
        chain = unpack_chain(settings.chain)
        call = settings_of(chain)
        self.column = settings.prompt_column
        own = getattr(chain.student, "max_tokens", None)
        self.max_tokens: int = call.max_tokens or own or _DEFAULT_MAX_TOKENS
        self.counts_guidance = call.max_tokens is not None
        self.temperature = call.temperature or 0.0
        self.stop = call.stop or []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with ``messages`` and ``sampling_params``.

        Args:
            row: The row, with what the teacher's stage gave.
        """
        teacher = read_result(row, self.column)
        if not teacher.needs_student:
            # The processor takes every row: this one costs it a token, which is thrown away.
            return {
                KEPT: json.dumps(list(row)),
                "messages": [{"role": "user", "content": "-"}],
                "sampling_params": {"max_tokens": 1, "temperature": 0.0},
            }
        messages = read_prompt(row[self.column], self.column)
        left = self.max_tokens - teacher.part.completion_tokens * self.counts_guidance
        if teacher.guidance:
            messages = [*messages, AIMessage(teacher.guidance.rstrip() or teacher.guidance)]
        return {
            KEPT: json.dumps(list(row)),
            "messages": convert_to_openai_messages(messages),
            "sampling_params": {
                "max_tokens": max(1, left),
                "temperature": self.temperature,
                **({"stop": self.stop} if self.stop else {}),
            },
        }


def keep_written(row: dict[str, Any]) -> dict[str, Any]:
    """Keep of the processor's row what it came with, and what the engine wrote.

    Args:
        row: The row as the processor's last stage left it.

    Returns:
        The row as it came, with one more column.
    """
    names = ("generated_text", "num_input_tokens", "num_generated_tokens")
    written = {name: row[name] for name in names}
    kept = {name: row[name] for name in json.loads(row[KEPT])}
    return {**kept, KEPT: row[KEPT], WRITTEN: json.dumps(written, default=int)}


class EngineAnswers:
    """Makes the output columns behind the processor."""

    def __init__(self, settings: StageSettings, controller: Any) -> None:
        """Keep the settings.

        Args:
            settings: What was asked, and how.
            controller: The handle of the job's `JobController`.
        """
        self.settings, self.controller = settings, controller

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        """Make the output columns of a block.

        Args:
            block: What the processor gave, rows on which the engine failed included.

        Returns:
            The block with its output columns.
        """
        rows = block.to_pylist()
        totals = UsageTotals()
        results = [self._result(row, totals) for row in rows]
        spend_student(self.controller, block, self.settings, totals)
        kept = json.loads(rows[0][KEPT]) if rows else block.column_names
        return add_columns(block.select(kept), results, self.settings.names)

    def _result(self, row: Mapping[str, Any], totals: UsageTotals) -> RowResult:
        teacher = read_result(row, self.settings.prompt_column)
        if not teacher.needs_student:
            return RowResult.without_student(teacher)
        if failed := row.get(_ENGINE_ERROR):
            return RowResult(teacher=teacher, error=f"StudentError: {failed}")
        written = json.loads(row[WRITTEN])
        guidance, text = teacher.guidance, str(written["generated_text"])
        blank = guidance[len(guidance.rstrip()) :] if guidance.strip() else ""
        tokens = (written["num_input_tokens"], written["num_generated_tokens"])
        part = self._part(*tokens, totals)
        return RowResult(
            teacher=teacher,
            text=guidance + RepeatedWhitespace(blank).drop(text, last=True),
            guidance=guidance,
            finished_by="student",
            fallback=teacher.fallback,
            student=part,
        )

    def _part(self, prompt: int, completion: int, totals: UsageTotals) -> ModelUsage:
        price = self.settings.options.student_price
        if isinstance(price, Mapping):
            price = price.get(self.settings.options.processor.model_source)
        usage = UsageMetadata(
            input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion
        )
        model = self.settings.options.processor.model_source
        given: Any = FREE if self.settings.options.student_price is None else price
        found = price_call(given, usage, provider=None, model=model, base_url=None)
        totals.calls += 1
        totals.add_measured(Tokens(prompt=prompt, completion=completion), found)
        return ModelUsage(
            calls=1,
            prompt_tokens=prompt,
            completion_tokens=completion,
            prompt_cost=None if found.prompt is None else str(found.prompt),
            completion_cost=None if found.completion is None else str(found.completion),
        )
