"""How much of several prompts is the same at their beginning: what a provider could cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

from langchain_gkt.prompts.base import TeacherPrompt, TeacherPromptSequence


class SharedPrefix(NamedTuple):
    """What some prompts begin with, measured in characters.

    Attributes:
        shared: Characters with which all of them begin.
        total: Characters of all of them together.
        prompts: How many they are.
    """

    shared: int
    total: int
    prompts: int

    @property
    def share(self) -> float:
        """What part of all prompts together it is."""
        return self.shared * self.prompts / self.total if self.total else 0.0

    def tokens(self, prompt_tokens: int) -> int:
        """Return about how many tokens of each prompt it is.

        Args:
            prompt_tokens: Tokens of all prompts together.
        """
        return int(self.shared * prompt_tokens / self.total) if self.total else 0


def shared_prefix(prompts: Sequence[Sequence[BaseMessage]]) -> SharedPrefix:
    """Measure with what some prompts begin.

    Args:
        prompts: The prompts. Of one prompt alone nothing is shared.
    """
    texts = [[(message.type, str(message.content)) for message in prompt] for prompt in prompts]
    total = sum(len(text) for prompt in texts for _, text in prompt)
    if len(texts) < 2:
        return SharedPrefix(0, total, len(texts))
    first, last = min(texts), max(texts)  # what these two share, all between them share
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
    """Describe what a teacher prompt does to the beginning of prompts that a provider caches.

    Args:
        prompt: A teacher prompt, or None.

    Returns:
        A sentence for each of its steps that changes it; nothing of functions, which nobody knows.
    """
    steps = prompt.steps if isinstance(prompt, TeacherPromptSequence) else (prompt,)
    notes = [(step, step.cache_note()) for step in steps if isinstance(step, TeacherPrompt)]
    return [f"{type(step).__name__} {note}" for step, note in notes if note]
