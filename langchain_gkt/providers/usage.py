"""Checks a provider's usage report: accepts a possible one, refuses others with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages.ai import UsageMetadata
from pydantic import BaseModel

MOST_TOKENS = 10**9
"""More tokens than any single call can have."""
MAX_CHARS_PER_TOKEN = 32
"""More characters per token than any real text has."""

_DETAILS = {"input_token_details": "input_tokens", "output_token_details": "output_tokens"}
# Where clients keep the provider's own report, and the names of its counts.
_REPORTS = ("token_usage", "usage", "usage_metadata")
_PROMPT = ("prompt_tokens", "prompt_token_count", "input_tokens", "inputTokens")
_COMPLETION = ("completion_tokens", "candidates_token_count", "output_tokens", "outputTokens")
_PROMPT_DETAILS = (
    "prompt_tokens_details",
    "prompt_token_details",
    "input_tokens_details",
    "input_token_details",
    "cache_creation",
)
_COMPLETION_DETAILS = (
    "completion_tokens_details",
    "completion_token_details",
    "output_tokens_details",
    "output_token_details",
)
_IN_LANGCHAIN = {
    "audio_tokens": "audio",
    "cached_tokens": "cache_read",
    "cache_read_input_tokens": "cache_read",
    "cacheReadInputTokens": "cache_read",
    "cached_content_token_count": "cache_read",
    "num_cached_tokens": "cache_read",
    "prompt_cache_hit_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_creation",
    "cacheWriteInputTokens": "cache_creation",
    "cache_write_input_tokens": "cache_creation",
    "cache_write_tokens": "cache_creation",
    "ephemeral_5m_input_tokens": "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens": "ephemeral_1h_input_tokens",
    "reasoning_tokens": "reasoning",
}
_PLAIN = (
    "text_tokens",
    "prompt_cache_miss_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
)
"""Details at the price of any token."""
# Anthropic and Bedrock count these besides the prompt, others inside.
_BESIDE = (
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cacheReadInputTokens",
    "cacheWriteInputTokens",
)
_INSIDE = ("prompt_tokens", "prompt_token_count")
# OpenAI, Anthropic and Gemini. Bedrock. Vertex AI.
_TIER_KEYS = ("service_tier", "serviceTier", "speed", "traffic_type", "trafficType")
_STANDARD_TIERS = ("default", "auto", "standard", "unspecified", "on_demand")
_TIERS = ("flex", "priority", "batch", "fast", "scale", *_STANDARD_TIERS)
_TIER_PREFIXES = re.compile(r"service_tier_|traffic_type_|on_demand_(?=flex|priority)")


def believable(
    usage: Mapping[str, Any] | None, *, wrote: bool, chars: int = 0
) -> tuple[UsageMetadata | None, str | None]:
    """Check the usage of one call.

    Args:
        usage: Usage metadata from the provider's client, or None.
        wrote: Whether the reply holds text or a tool call.
        chars: Characters of its text.

    Returns:
        The usage and the refused part, or None. The usage lacks impossible details. It is None if
        it reports nothing or only a part, or is impossible itself.
    """
    if not usage:
        return None, None
    counts = {name: usage.get(name) for name in ("input_tokens", "output_tokens")}
    for name, count in counts.items():
        if count is not None and not _is_count(count):
            return None, f"{name}={_shown(count)}"
    prompt, completion = counts.values()
    # Clients write this if little or nothing was reported. No prompt is empty.
    if not prompt or completion is None or (wrote and not completion):
        return None, None
    if chars > MAX_CHARS_PER_TOKEN * (completion + 2):  # from the first chunk of a stream
        return None, None
    total = prompt + completion
    believed: dict[str, Any] = {**usage, **counts}
    refused = None
    if not _is_count(usage.get("total_tokens")) or usage["total_tokens"] < total:
        believed["total_tokens"] = total
    for name, whole in _DETAILS.items():
        details = usage.get(name)
        if not details:
            continue
        if not isinstance(details, Mapping):
            del believed[name]
            refused = f"{name}={_shown(details)}"
            continue
        kept = {k: n for k, n in details.items() if _is_count(n) and n <= usage[whole]}
        odd = {k: n for k, n in details.items() if k not in kept and n is not None}
        believed[name] = kept
        if odd:
            refused = f"{name}={_shown(odd)}"
    return believed, refused  # type: ignore[return-value]


def completed(
    usage: Mapping[str, Any] | None, *metadata: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Add missing counts and details from the provider's own report to usage metadata.

    Args:
        usage: Usage metadata from the provider's client, or None. Its values stay.
        metadata: Places of the provider's own report: ``response_metadata``, ``llm_output``.
    """
    for report in _reports(*metadata):
        raw = _read_report(report)
        if not usage or not (usage.get("input_tokens") or usage.get("output_tokens")):
            usage = raw if raw["input_tokens"] or raw["output_tokens"] else usage
            continue
        usage = _joined(usage, raw)
    return usage


def _reports(*metadata: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    for place in metadata:
        for name in _REPORTS:
            report = (place or {}).get(name)
            if not report:
                continue
            if isinstance(report, BaseModel):  # as LiteLLM's client keeps it
                report = report.model_dump()
            if isinstance(report, Mapping) and report:
                yield report


def _read_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a provider's own report in the form of usage metadata."""
    prompt = next((report[name] for name in _PROMPT if report.get(name)), None)
    completion = next((report[name] for name in _COMPLETION if report.get(name)), None)
    beside = {key: n for key, n in report.items() if key in _IN_LANGCHAIN or "cach" in key.lower()}
    inside = [_renamed(beside), *(_renamed(report.get(name)) for name in _PROMPT_DETAILS)]
    prompts: dict[str, Any] = {}
    for details in inside:
        prompts |= {name: n for name, n in details.items() if name != "reasoning"}
    answers: dict[str, Any] = {}
    for name in _COMPLETION_DETAILS:
        answers |= _renamed(report.get(name))
    if isinstance(prompt, int) and not any(report.get(name) for name in _INSIDE):
        prompt += sum(n for name in _BESIDE if isinstance(n := report.get(name), int))
    # Google counts reasoning besides the answer.
    if isinstance(thoughts := report.get("thoughts_token_count"), int) and thoughts:
        completion, answers["reasoning"] = (completion or 0) + thoughts, thoughts
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": report.get("total_tokens"),
        "input_token_details": prompts,
        "output_token_details": answers,
    }


def _renamed(details: Any) -> dict[str, Any]:
    """Return details by LangChain's names. An unknown one keeps its own, so it is reported."""
    if not isinstance(details, Mapping):
        return {}
    return {
        str(_IN_LANGCHAIN.get(key, key)): n
        for key, n in details.items()
        if n and (key in _IN_LANGCHAIN or (key not in _PLAIN and _is_count(n)))
    }


def _joined(usage: Mapping[str, Any], raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add counts and details that usage metadata lacks, from a report of the same call."""
    joined = dict(usage)
    for name in ("input_tokens", "output_tokens"):
        if not joined.get(name):
            joined[name] = raw[name]
        elif raw[name] and raw[name] != joined[name]:
            return usage  # of another call, or counted in another way
    for name in _DETAILS:
        known = joined.get(name) or {}
        if not isinstance(known, Mapping):
            continue
        # A tier's details have its name as a prefix: "flex_cache_read".
        known_keys = {key for key, count in known.items() if count}
        new = {
            key: count
            for key, count in raw[name].items()
            if not any(f"_{k}".endswith(f"_{key.removesuffix('_tokens')}") for k in known_keys)
        }
        if new:
            joined[name] = {**known, **new}
    return joined


def service_tier(*metadata: Mapping[str, Any] | None) -> str | None:
    """Return the service tier in a response: ``flex``, ``priority``... None for the standard one.

    Args:
        metadata: Places of its name: ``response_metadata``, ``llm_output``.
    """
    for place in (*metadata, *_reports(*metadata)):
        for key in _TIER_KEYS:
            tier = (place or {}).get(key)
            if not tier:
                continue
            if isinstance(tier, Mapping):  # as Bedrock says it
                tier = tier.get("type")
            if isinstance(tier, str) and tier and _once(tier) not in _STANDARD_TIERS:
                return _once(tier)
    return None


def _once(tier: str) -> str:
    """Return a tier that each chunk of a stream may have named before they were joined."""
    tier = _TIER_PREFIXES.sub("", tier.lower())
    names = re.findall("|".join(_TIERS), tier)
    if names and "".join(names) == tier:
        return str(names[-1])  # the requested tier may come before the actual one
    same = re.fullmatch(r"(.+?)\1+", tier)
    return same[1] if same else tier


def repeated(usages: Sequence[Mapping[str, Any] | None]) -> UsageMetadata | None:
    """Return the last of the chunks' reports, if each names the same prompt.

    LangChain adds up the reports of a stream's chunks. Some servers report the whole usage so far
    in every chunk, which then counts many times. None if adding up is right.
    """
    reports = [usage for usage in usages if usage and usage.get("input_tokens")]
    if len(reports) < 2 or len({usage["input_tokens"] for usage in reports}) > 1:
        return None
    return reports[-1]  # type: ignore[return-value]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**30:  # Python refuses to write very long ones
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:80]
