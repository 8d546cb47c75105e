"""Estimates what the teacher alone would have used for a whole answer, in its own tokens."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.costs.usage import read_tokens

ESTIMATE_METHODS = {
    "finished by the teacher": "measured: the teacher finished the answer itself",
    "teacher's tokenizer": (
        "same prompt tokens; completion tokens = the whole answer by the teacher's tokenizer, "
        "plus the reasoning tokens the guidance took"
    ),
    "characters per token": (
        "same prompt tokens; completion tokens = characters of the whole answer / characters per "
        "token of the teacher's own guidance, plus the reasoning tokens the guidance took"
    ),
}
"""How a call was estimated, in words."""

_ENCODINGS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


def estimate_teacher_only(
    gkt: Mapping[str, Any], usage: UsageMetadata, answer: str, count: Callable[[str], int] | None
) -> tuple[UsageMetadata, str] | None:
    """Estimate the usage of the whole answer by the teacher alone.

    Args:
        gkt: ``message.response_metadata["gkt"]`` of a guided answer.
        usage: The teacher's usage for its guidance.
        answer: The whole answer.
        count: The teacher's tokenizer. None if unknown.

    Returns:
        Usage metadata and a key of `ESTIMATE_METHODS`, or None if nothing allows an estimate.
    """
    if gkt.get("finished_by") == "teacher":
        return usage, "finished by the teacher"
    tokens = read_tokens(usage)
    visible = tokens.completion - tokens.reasoning
    if count is not None:
        answer_tokens, method = count(answer), "teacher's tokenizer"
    elif visible > 0 and gkt.get("written_chars"):
        answer_tokens = round(len(answer) * visible / gkt["written_chars"])
        method = "characters per token"
    else:
        return None
    completion = tokens.reasoning + answer_tokens
    alone: Any = {**usage, "output_tokens": completion, "total_tokens": tokens.prompt + completion}
    return alone, method


def on_whole_prompt(usage: UsageMetadata, share: float) -> UsageMetadata:
    """Estimate a teacher's usage on the whole prompt from its usage on a prompt of its own.

    Prompt tokens, cached ones included, grow in proportion to the whole conversation.
    ``share`` is ``teacher_prompt_share`` of the answer's ``"gkt"``.
    """

    def grown(tokens: int) -> int:
        return round(tokens / share)

    prompt = grown(usage["input_tokens"])
    whole: Any = {**usage, "input_tokens": prompt, "total_tokens": prompt + usage["output_tokens"]}
    if details := usage.get("input_token_details"):
        counts: Mapping[str, Any] = details
        whole["input_token_details"] = {name: grown(tokens or 0) for name, tokens in counts.items()}
    return whole  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def offline_tokenizer(model: str) -> Callable[[str], int] | None:
    """Return how an OpenAI model counts tokens, if tiktoken already has its file.

    tiktoken would fetch a missing file from the network. A bill must not.
    """
    try:
        import tiktoken
    except ImportError:
        return None
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    if not _has_file(name):
        return None
    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def _has_file(encoding: str) -> bool:
    # Where tiktoken looks for a file before it asks the network (tiktoken.load).
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":
        return False
    root = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    name = hashlib.sha1(_ENCODINGS.format(encoding).encode(), usedforsecurity=False).hexdigest()
    return (root / name).is_file()
