"""Usage as a provider reports it: believed if it can be true, refused with a reason if not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages.ai import UsageMetadata

MOST_TOKENS = 10**9
"""More tokens than any single call can have."""

_DETAILS = {"input_token_details": "input_tokens", "output_token_details": "output_tokens"}


def believable(
    usage: Mapping[str, Any] | None, *, wrote: bool
) -> tuple[UsageMetadata | None, str | None]:
    """Check the usage of one call.

    Args:
        usage: Usage metadata as the provider's client made it, or None.
        wrote: Whether the reply holds text.

    Returns:
        The usage without details that cannot be true, or None if it reports nothing or cannot
        be true itself; and what was refused, or None.
    """
    if not usage:
        return None, None
    counts = {name: usage.get(name) for name in ("input_tokens", "output_tokens")}
    if all(count in (None, 0) for count in counts.values()):
        return None, None  # what clients write if nothing was reported: no prompt is empty
    for name, count in counts.items():
        if not _is_count(count):
            return None, f"{name}={_shown(count)}"
    if wrote and not counts["output_tokens"]:
        return None, "output_tokens=0 for a reply with text"
    total: int = sum(map(int, counts.values()))  # type: ignore[arg-type]
    believed: dict[str, Any] = {**usage, **counts}
    refused = None
    if not _is_count(usage.get("total_tokens")) or usage["total_tokens"] < total:
        believed["total_tokens"] = total
    for name, whole in _DETAILS.items():
        given = usage.get(name)
        if not given:
            continue
        if not isinstance(given, Mapping):
            del believed[name]
            refused = f"{name}={_shown(given)}"
            continue
        kept = {k: n for k, n in given.items() if _is_count(n) and n <= usage[whole]}
        odd = {k: n for k, n in given.items() if k not in kept and n is not None}
        believed[name] = kept
        if odd:
            refused = f"{name}={_shown(odd)}"
    return believed, refused  # type: ignore[return-value]


def repeated(usages: Sequence[Mapping[str, Any] | None]) -> UsageMetadata | None:
    """Find the usage of a stream that reports all of its prompt more than once.

    LangChain adds up what the chunks of a stream report. Some servers report the whole usage so
    far in every chunk, which then counts many times.

    Args:
        usages: What each chunk reports.

    Returns:
        The last report, if each names the same prompt; None if adding up is right.
    """
    told = [usage for usage in usages if usage and usage.get("input_tokens")]
    if len(told) < 2 or len({usage["input_tokens"] for usage in told}) > 1:
        return None
    return told[-1]  # type: ignore[return-value]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**30:  # Python refuses to write very long ones
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:80]
