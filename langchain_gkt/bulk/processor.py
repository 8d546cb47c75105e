"""Ray's vLLM processor as the student: its input for a row, and the use of its text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage

from langchain_gkt.bulk.chains import read_prompt, settings_of, unpack_chain
from langchain_gkt.bulk.columns import (
    TeacherResult,
    add_columns,
    row_values,
    values_without_student,
)
from langchain_gkt.bulk.stages import StageSettings, read_result, spend_student
from langchain_gkt.chain.messages import RepeatedWhitespace
from langchain_gkt.costs.prices import price_call
from langchain_gkt.costs.totals import UsageTotals
from langchain_gkt.costs.usage import Tokens, as_usage
from langchain_gkt.evaluation.running.records import ModelUsage
from langchain_gkt.students.prompting import PromptBuilder

if TYPE_CHECKING:
    import pyarrow

KEPT, REFUSED, WRITTEN = "__gkt_kept", "__gkt_refused", "__gkt_written"
"""Columns around the processor: the row, why it has no prompt, and the engine's text."""

_ENGINE_ERROR = "__inference_error__"
_DEFAULT_MAX_TOKENS = 256


def engine_config(processor: Any) -> Any:
    """Return a copy of the user's configuration with only the engine, which takes token ids.

    Ray's other stages would read control tokens in a question. With some tokenizers they would drop
    the whitespace between guidance and answer. A row that the engine refuses does not end the job.
    """
    stages = ("chat_template_stage", "tokenize_stage", "detokenize_stage")
    off: dict[str, Any] = dict.fromkeys(stages, False)
    return processor.model_copy(update={**off, "should_continue_on_error": True})


def engine_resources(processor: Any) -> dict[str, float]:
    """Return the number of CPUs and of GPUs that Ray reserves for one replica of the engine."""
    engine, group = processor.engine_kwargs, processor.placement_group_config or {}
    sizes = (engine.get(f"{name}_parallel_size", 1) for name in ("tensor", "pipeline"))
    workers = math.prod(sizes)
    bundles = group.get("bundles") or [group.get("bundle_per_worker") or {"GPU": 1}] * workers
    return {name: sum(bundle.get(name, 0) for bundle in bundles) for name in ("CPU", "GPU")}


class EngineRequest:
    """Makes the processor's row, with the guidance as the beginning of the answer."""

    def __init__(self, settings: StageSettings) -> None:
        """Read the chain's settings."""
        chain = unpack_chain(settings.chain)
        call, processor = settings_of(chain), settings.options.processor
        self.column = settings.prompt_column
        own = getattr(chain.student, "max_tokens", None)
        self.max_tokens: int = call.max_tokens or own or _DEFAULT_MAX_TOKENS
        self.counts_guidance = call.max_tokens is not None
        self.temperature = call.temperature or 0.0
        self.stop = call.stop or []
        engine, stage = processor.engine_kwargs, processor.chat_template_stage
        stage = stage if isinstance(stage, Mapping) else getattr(stage, "__dict__", {})
        self.tokenizer = engine.get("tokenizer", processor.model_source)
        self.trusted = bool(engine.get("trust_remote_code"))
        self.template = stage.get("chat_template")
        self.template_kwargs = dict(stage.get("chat_template_kwargs") or {})

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row in a column of its own, with the engine's input."""
        teacher, refused = read_result(row, self.column), ""
        # The processor takes every row. One without work costs it a token, which is dropped.
        ids, most = [0], 1
        if teacher.needs_student:
            try:
                ids = self._tokens(row, teacher)
                spent = teacher.part.completion_tokens if self.counts_guidance else 0
                most = max(1, self.max_tokens - spent)
            except ValueError as error:
                refused = f"StudentError: {error}"
        params = {"max_tokens": most, "temperature": self.temperature}
        return {
            # beside, because the engine reads "prompt", "model" and others of its row
            KEPT: dict(row),
            REFUSED: refused,
            "tokenized_prompt": ids,
            "sampling_params": {**params, **({"stop": self.stop} if self.stop else {})},
        }

    def _tokens(self, row: dict[str, Any], teacher: TeacherResult) -> list[int]:
        messages = read_prompt(row[self.column], self.column)
        if teacher.guidance:
            messages = [*messages, AIMessage(teacher.guidance.rstrip() or teacher.guidance)]
        prompts = _prompts(self.tokenizer, self.trusted, self.template)
        written = prompts.write(messages, template_kwargs=self.template_kwargs)
        return [*written.ids, *written.answer_prefix]


@lru_cache(maxsize=2)
def _prompts(name: str, trusted: bool, template: str | None) -> PromptBuilder:
    """Load a tokenizer once in each of Ray's processes."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trusted)
    if template is not None:
        tokenizer.chat_template = template
    return PromptBuilder(tokenizer)


def keep_written(row: dict[str, Any]) -> dict[str, Any]:
    """Return the input row of the processor's row, with the engine's text in one more column."""
    names = ("generated_text", "num_input_tokens", "num_generated_tokens")
    written = {name: row[name] for name in names}
    failed = row[_ENGINE_ERROR]
    written["error"] = row[REFUSED] or (failed and f"StudentError: {failed}")
    return {**row[KEPT], WRITTEN: json.dumps(written, default=int)}


class EngineAnswers:
    """Makes the output columns after the processor."""

    def __init__(self, settings: StageSettings, controller: Any) -> None:
        """Keep the settings and the handle of the job's `JobController`."""
        self.settings, self.controller = settings, controller
        self.price = settings.options.role_prices.student

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        """Make the output columns of a block, whose rows are those of `keep_written`."""
        rows = block.to_pylist()
        totals = UsageTotals()
        results = [self._result(row, totals) for row in rows]
        spend_student(self.controller, block, self.settings, totals)
        if WRITTEN in block.column_names:  # a block without rows has no columns
            block = block.drop_columns([WRITTEN])
        return add_columns(block, results, self.settings.names)

    def _result(self, row: Mapping[str, Any], totals: UsageTotals) -> dict[str, Any]:
        teacher = read_result(row, self.settings.prompt_column)
        if not teacher.needs_student:
            return values_without_student(teacher)
        written = json.loads(row[WRITTEN])
        if written["error"]:
            return row_values(teacher, error=written["error"])
        guidance, text = teacher.guidance, str(written["generated_text"])
        blank = guidance[len(guidance.rstrip()) :] if guidance.strip() else ""
        return row_values(
            teacher,
            self._part(written["num_input_tokens"], written["num_generated_tokens"], totals),
            answer=guidance + RepeatedWhitespace(blank).drop(text, last=True),
            guidance=guidance,
            finished_by="student",
            fallback=teacher.fallback,
        )

    def _part(self, prompt: int, completion: int, totals: UsageTotals) -> ModelUsage:
        model = self.settings.options.processor.model_source
        price: Any = self.price.get(model) if isinstance(self.price, Mapping) else self.price
        tokens = Tokens(prompt=prompt, completion=completion)
        cost = price_call(price, as_usage(tokens), provider=None, model=model, base_url=None)
        totals.calls += 1
        totals.add_measured(tokens, cost)
        return ModelUsage(
            calls=1,
            prompt_tokens=prompt,
            completion_tokens=completion,
            prompt_cost=None if cost.prompt is None else str(cost.prompt),
            completion_cost=None if cost.completion is None else str(cost.completion),
        )
