"""Reads providers' reports: tokens from usage metadata, and which errors were billed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult

from langchain_gkt.metadata import from_cache
from langchain_gkt.providers.usage import believable, completed

_TIERS = ("flex", "priority")
_PREFIXES = ("", *(f"{tier}_" for tier in _TIERS))


def _in_any_tier(*names: str) -> Set[str]:
    return {f"{prefix}{name}" for name in names for prefix in _PREFIXES} | {*_TIERS}


_PROMPT_DETAILS = _in_any_tier(
    "audio",
    "cache_creation",
    "cache_read",
    "ephemeral_1h_input_tokens",
    "ephemeral_5m_input_tokens",
    "text",
)
_ANSWER_DETAILS = _in_any_tier("audio", "reasoning", "text")
CHARS_PER_TOKEN = 4.0
"""Used until a model's own texts have been measured. Counts as langchain-core does."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One call's tokens, read from usage metadata.

    Attributes:
        prompt: Prompt tokens, cached ones included.
        cached: Prompt tokens read from the provider's cache.
        cache_written: Prompt tokens written to it.
        cache_written_1h: Those of them that stay there for an hour.
        completion: Completion tokens, reasoning included.
        reasoning: Completion tokens spent on hidden reasoning.
        tier: The service tier the tokens are marked with, such as ``flex``.
        unknown: Names of details that are unknown here. Their tokens count as plain ones.
    """

    prompt: int
    completion: int
    cached: int = 0
    cache_written: int = 0
    cache_written_1h: int = 0
    prompt_audio: int = 0
    reasoning: int = 0
    completion_audio: int = 0
    tier: str | None = None
    unknown: tuple[str, ...] = ()


def read_tokens(usage: UsageMetadata | Mapping[str, Any], tier: str | None = None) -> Tokens:
    """Read usage metadata. Details never exceed the sums they are part of.

    langchain-openai writes the details of another service tier under names of their own, such as
    ``flex_cache_read`` and ``priority_reasoning``. langchain-anthropic names tokens written to the
    cache by their lifetime, and may or may not repeat them under ``cache_creation``.
    """
    counts: dict[str, Any] = dict(usage)
    prompts = counts.get("input_token_details") or {}
    answers = counts.get("output_token_details") or {}
    for name in _TIERS:
        if tier is None and name in {**prompts, **answers}:
            tier = name
    prompt, completion = counts["input_tokens"], counts["output_tokens"]
    cached = min(_detail(prompts, "cache_read"), prompt)
    hour = _detail(prompts, "ephemeral_1h_input_tokens")
    written = hour + _detail(prompts, "ephemeral_5m_input_tokens")
    written = min(max(written, _detail(prompts, "cache_creation")), prompt - cached)
    return Tokens(
        prompt=prompt,
        completion=completion,
        cached=cached,
        cache_written=written,
        cache_written_1h=min(hour, written),
        prompt_audio=min(prompts.get("audio") or 0, prompt),
        reasoning=min(_detail(answers, "reasoning"), completion),
        completion_audio=min(answers.get("audio") or 0, completion),
        tier=tier if tier not in ("default", "auto", "standard") else None,
        unknown=(*_unknown(prompts, _PROMPT_DETAILS), *_unknown(answers, _ANSWER_DETAILS)),
    )


def as_usage(tokens: Tokens) -> UsageMetadata:
    """Return tokens as usage metadata, without their details."""
    return UsageMetadata(
        input_tokens=tokens.prompt,
        output_tokens=tokens.completion,
        total_tokens=tokens.prompt + tokens.completion,
    )


def _detail(details: Mapping[str, Any], name: str) -> int:
    if not details:  # as most reports are
        return 0
    return sum(int(details.get(f"{prefix}{name}") or 0) for prefix in _PREFIXES)


def _unknown(details: Mapping[str, Any], known: Set[str]) -> Iterator[str]:
    return (name for name, count in details.items() if count and name not in known)


def usage_of(response: LLMResult, message: AIMessage | None) -> UsageMetadata | None:
    """Return a result's usage, completed by the provider's own report.

    None if it has no readable usage, or an impossible one.
    """
    usage: Any = message.usage_metadata if message else None
    if usage and from_cache(usage):
        return usage  # type: ignore[no-any-return]
    own = message.response_metadata if message else None
    usage, text = completed(usage, own, response.llm_output), str(message.text) if message else ""
    wrote = bool(text or (message and message.tool_calls))
    return believable(usage, wrote=wrote, chars=len(text))[0]


def message_of(response: object) -> AIMessage | None:
    """Return the reply in a result. After an early end the partial one comes first."""
    if not isinstance(response, LLMResult):
        return None
    generations = itertools.chain.from_iterable(response.generations)
    messages = (getattr(generation, "message", None) for generation in generations)
    return next((message for message in messages if isinstance(message, AIMessage)), None)


def text_length(messages: list[BaseMessage]) -> int:
    """Count the characters of a prompt, tool calls included."""
    calls = [str(getattr(message, "tool_calls", None) or "") for message in messages]
    return sum(len(str(m.text)) for m in messages) + sum(map(len, calls))


@dataclass(kw_only=True)
class TokenRate:
    """A model's tokens per character, learned from the calls that report usage.

    Attributes:
        prompt_tokens: Billed tokens of prompts, including what the provider adds.
        text_tokens: Billed visible tokens of answers.
        max_prompt_rate: Highest tokens per character of any prompt. 0 before the first.
    """

    prompt_chars: int = 0
    prompt_tokens: int = 0
    text_chars: int = 0
    text_tokens: int = 0
    max_prompt_rate: float = 0.0

    def learn(self, tokens: Tokens, *, prompt_chars: int, text_chars: int) -> None:
        """Learn from one call."""
        if prompt_chars:
            self.prompt_chars += prompt_chars
            self.prompt_tokens += tokens.prompt
            self.max_prompt_rate = max(self.max_prompt_rate, tokens.prompt / prompt_chars)
        if text_chars and tokens.completion > tokens.reasoning:
            self.text_chars += text_chars
            self.text_tokens += tokens.completion - tokens.reasoning

    def prompt(self, chars: int) -> int:
        """Estimate the tokens of a prompt from its characters."""
        if self.prompt_chars and self.prompt_tokens:
            return round(chars * self.prompt_tokens / self.prompt_chars)
        return round(chars / CHARS_PER_TOKEN)

    def completion(self, chars: int) -> int:
        """Estimate the tokens of an answer from its characters."""
        if self.text_chars and self.text_tokens:
            return round(chars * self.text_tokens / self.text_chars)
        return round(chars / CHARS_PER_TOKEN)
