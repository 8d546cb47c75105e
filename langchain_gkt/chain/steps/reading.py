"""Reads a teacher's reply as guidance, while it grows and when it is whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage

from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.teacher_outcome import TeacherOutcome
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.prompts.base import PreparedPrompt
from langchain_gkt.structured_output.schema import schema_in
from langchain_gkt.teachers import replies
from langchain_gkt.teachers.refusals import refusal_in
from langchain_gkt.texts.reasoning import without_reasoning
from langchain_gkt.texts.stop_strings import before_stop


def read(
    settings: CallSettings,
    prompt: PreparedPrompt,
    message: AIMessage,
    limit: int | None,
    outcome: TeacherOutcome,
) -> Guidance:
    """Read a whole reply to a prompt as guidance. The outcome gets the reason if it is dropped.

    Raises:
        TeacherError: If the reply holds nothing to continue.
    """
    if refusal := refusal_in(message):
        return outcome.refused(message, refusal, settings)
    # Nothing is cut if nobody continues.
    alone = not settings.strategy.asks_student
    is_last = alone or (limit is not None and limit == settings.max_tokens)
    policy = GuidancePolicy(cut="none") if is_last else settings.policy
    # In mode ``teacher`` the answer is its own.
    guidance = replies.read(message, limit, policy, settings.stop, keep_reasoning=alone)
    if "no-limit" not in settings.warned and (
        ignored := replies.explain_ignored_limit(guidance, limit)
    ):
        settings.warn_once(*ignored)
    visible = without_reasoning(guidance.written)
    if not (alone or settings.response_format) and not visible.startswith(outcome.shown):
        settings.warn_of_reasoning("teacher")
        guidance = replies.read(message, limit, policy, settings.stop, keep_reasoning=True)
    if settings.response_format:
        guidance = _read_json(settings, guidance, schema_in(settings.response_format), outcome)
    elif not is_last and not guidance.complete and guidance.kept_tokens < policy.min_tokens:
        outcome.fallback = (
            f"the guidance was dropped: {guidance.kept_tokens} of its {guidance.token_count} "
            f"tokens were left, fewer than min_tokens={policy.min_tokens}"
        )
        return replace(guidance, text="", dropped=guidance.kept_tokens)
    elif prompt.hint is not None and not alone:
        text = prompt.hint(guidance.text, guidance.complete)
        outcome.fallback = None if text else "the teacher's hint could not be read"
        dropped = None if text else 0
        guidance = replace(guidance, text=text, complete=False, finish_reason=None, dropped=dropped)
    if len(outcome.shown) > len(guidance.text):  # shown text cannot be taken back
        return replace(guidance, text=outcome.shown)
    return guidance


def _read_json(
    settings: CallSettings, guidance: Guidance, schema: dict[str, Any], outcome: TeacherOutcome
) -> Guidance:
    """Keep the part of the guidance that begins an object of the schema."""
    from langchain_gkt.structured_output.partial_json import (  # needs an extra
        complete_json,
        json_prefix,
    )

    written = without_reasoning(guidance.written)
    text, complete = json_prefix(written, schema)
    if not complete and (whole := complete_json(written, schema, outcome.shown)):
        text, complete = whole, True
    if not complete and not settings.strategy.asks_student:
        return guidance
    outcome.fallback = None if text else "the teacher wrote no JSON of the schema"
    return replace(guidance, text=text, complete=complete)


def showable(
    settings: CallSettings, written: str, limit: int | None, prompt: PreparedPrompt
) -> str:
    """Return the part of a growing reply that can be shown. Its last word may be incomplete."""
    if prompt.hint is not None and settings.strategy.asks_student:
        return ""
    if prompt.restore is not None:
        written = prompt.restore(written)
    written = replies.whole_characters(written, growing=True)
    if limit is not None:
        # A server may ignore the limit. Only the end shows how much is too much.
        written = written[: 4 * limit]
    if not settings.strategy.asks_student:
        return "" if settings.response_format else before_stop(written, settings.stop)
    if settings.policy.min_tokens:  # only the end shows whether enough is left
        return ""
    written = before_stop(without_reasoning(written), settings.stop)
    if not settings.response_format:
        return settings.policy.trim(written)
    from langchain_gkt.structured_output.partial_json import json_prefix  # needs an extra

    text = json_prefix(written, schema_in(settings.response_format))[0]
    return text if ":" in text else ""
