"""The common beginning of several prompts, which a provider could cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

from langchain_gkt.prompts.base import TeacherPrompt, steps_of


class SharedPrefix(NamedTuple):
    """The common beginning of some prompts, measured in characters.

    Attributes:
        shared: Characters with which all of them begin.
        total: Characters of all of them together.
        prompts: How many prompts there are.
    """

    shared: int
    total: int
    prompts: int

    @property
    def share(self) -> float:
        """Its share of all prompts together."""
        return self.shared * self.prompts / self.total if self.total else 0.0

    def tokens(self, prompt_tokens: int) -> int:
        """Return about how many tokens of each prompt it is, if all have ``prompt_tokens``."""
        return int(self.shared * prompt_tokens / self.total) if self.total else 0


def shared_prefix(prompts: Sequence[Sequence[BaseMessage]]) -> SharedPrefix:
    """Measure the common beginning of some prompts. A single one shares nothing."""
    texts = [[(message.type, str(message.content)) for message in prompt] for prompt in prompts]
    total = sum(len(text) for prompt in texts for _, text in prompt)
    if len(texts) < 2:
        return SharedPrefix(0, total, len(texts))
    first, last = min(texts), max(texts)  # all between these two begin as both do
    shared = 0
    for (kind, text), (other_kind, other) in zip(first, last, strict=False):
        if kind != other_kind:
            break
        pairs = zip(text, other, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        shared += same
        if same < len(text) or same < len(other):
            break
    return SharedPrefix(shared, total, len(texts))


def cache_notes(prompt: Any) -> list[str]:
    """Describe how a teacher prompt changes the beginning of prompts that a provider caches.

    Returns:
        A sentence for each of its steps that changes it. The effect of functions is unknown.
    """
    return [
        f"{type(step).__name__} {note}"
        for step in steps_of(prompt)
        if isinstance(step, TeacherPrompt) and (note := step.cache_note())
    ]
