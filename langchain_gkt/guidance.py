"""Guidance: the beginning of an answer, and the policy that says how much of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_core.messages.ai import UsageMetadata

Cut = Literal["word", "sentence", "none"]

# Scripts that set no blanks between words: each of their characters may end a word.
_UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_WHOLE_WORDS = re.compile(rf".*(?:(?=\s)|(?<=[{_UNSPACED}])(?=.))", re.DOTALL)
_WHOLE_SENTENCES = re.compile(r".*(?:[.!?][\"')\]]*(?=\s)|[。！？]|\n)", re.DOTALL)  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class GuidancePolicy:
    """How many tokens the teacher writes and where its text is cut.

    Attributes:
        tokens: Most completion tokens the teacher may write, or None to use the chain's
            ``guidance_tokens``. 0 asks no teacher at all.
        cut: Where guidance that stopped at the limit is cut back to before the student
            reads it. ``word``: to the last whole word, without trailing blanks: half a word
            is tokenised in a way the student has never seen. ``sentence``: to the last whole
            sentence, or word where no sentence is complete. ``none``: not at all. An answer
            the teacher finished by itself is never cut.
    """

    tokens: int | None = None
    cut: Cut = "word"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            ValueError: If ``tokens`` is negative or ``cut`` unknown.
        """
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(
                f"GuidancePolicy.tokens must be 0 (student only) or more, not {self.tokens}"
            )
        if self.cut not in ("word", "sentence", "none"):
            raise ValueError(
                f"GuidancePolicy.cut must be 'word', 'sentence' or 'none', not {self.cut!r}"
            )

    def trim(self, text: str) -> str:
        """Cut text that stopped at the token limit back to a clean edge.

        The result for a longer text always begins with the result for a shorter one, so
        that it can be shown while the teacher still writes.

        Args:
            text: What the teacher has written so far.

        Returns:
            The part of ``text`` to keep; may be empty.
        """
        if self.cut == "none":
            return text
        if self.cut == "sentence":
            sentences = _WHOLE_SENTENCES.match(text)
            if sentences and sentences[0].strip():
                return sentences[0].rstrip()
        words = _WHOLE_WORDS.match(text)
        return words[0].rstrip() if words else ""


def before_stop(text: str, stop: Sequence[str] | None) -> str:
    """Return what of a growing text is certain to come before a stop string.

    Args:
        text: The text so far.
        stop: Stop strings, or None.

    Returns:
        The text up to the first of them, or without an end that may grow into one.
    """
    ends = [end for end in stop or () if end]
    if found := [text.find(end) for end in ends if end in text]:
        return text[: min(found)]
    held = (size for end in ends for size in range(1, len(end)) if text.endswith(end[:size]))
    return text[: len(text) - max(held, default=0)]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What the teacher gave for one question.

    Attributes:
        text: The part the student continues: the teacher's text, cut by the policy.
        token_count: Completion tokens the teacher wrote, as it reported them; estimated
            from the text's length where it reported none. What was cut away is included:
            it was paid for.
        finish_reason: The provider's own word for why it stopped, or None.
        usage: The teacher's usage metadata, or None where it reported none.
        complete: Whether the teacher finished its answer inside the limit.
        written: All the teacher wrote, before cutting.
    """

    text: str
    token_count: int
    finish_reason: str | None = None
    usage: UsageMetadata | None = None
    complete: bool = False
    written: str = ""
