"""The reasoning that a model writes in front of its answer, between tags."""

from __future__ import annotations

from collections.abc import Iterable

Tags = tuple[str, str]
"""The marks that open and close a block of reasoning."""

TAGS: tuple[Tags, ...] = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning")),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
"""The tags of the models that are known, the usual ones first."""


def tags_in(text: str) -> Tags | None:
    """Return the tags that a chat template closes reasoning with, or None.

    Args:
        text: The chat template.
    """
    return next((tags for tags in TAGS if tags[1] in text), None)


def open_tags(header: str, marks: Iterable[str] = ()) -> Tags | None:
    """Return the tags of the block of reasoning that a text ends in, or None.

    Args:
        header: The end of a prompt, from its last message on.
        marks: Texts of control tokens. One behind a tag shows that the tag is only spoken of.
    """
    marks = list(marks)
    for tags in TAGS:
        at = header.rfind(tags[0])
        rest = header[at + len(tags[0]) :]
        if at >= 0 and tags[1] not in rest and not any(mark in rest for mark in marks):
            return tags
    return None


def closing(header: str, tags: Tags) -> str:
    """Return what closes a block of reasoning that a text has opened.

    Args:
        header: The text.
        tags: The block's tags.
    """
    if not tags[1].startswith("</"):
        return tags[1]
    rest = header.rpartition(tags[0])[2]
    return f"{'' if rest.endswith(chr(10)) else chr(10)}\n{tags[1]}\n\n"


class ReasoningFilter:
    """Takes the reasoning out of a growing answer, however its tags are split."""

    def __init__(self, opened: Tags | None = None, *, has_begun: bool = False) -> None:
        """Start with no text.

        Args:
            opened: The tags of the block that the prompt ends in, if it ends in one.
            has_begun: Whether the answer's beginning is written already.
        """
        self._inside, self._has_begun = opened, has_begun
        self._held, self._answers, self._trims = "", False, False
        self.reasoning = ""
        """What was taken out, with its tags."""

    def feed(self, text: str) -> str:
        """Take new text.

        Args:
            text: Text that follows what was fed before.

        Returns:
            The part that is certain to belong to the answer.
        """
        if self._answers:
            return text
        self._held += text
        while not self._answers:
            if self._inside:
                reasoning, end, rest = self._held.partition(self._inside[1])
                if not end:  # the closing tag may be split
                    return ""
                self.reasoning += reasoning + end
                self._inside, self._held, self._trims = None, rest, True
            elif found := _begins(self._held, [one for tags in TAGS for one in tags]):
                self.reasoning += self._held[: self._held.index(found) + len(found)]
                self._held, self._trims = self._held.partition(found)[2], True
                self._inside = next((tags for tags in TAGS if tags[0] == found), None)
            elif _may_begin(self._held):
                return ""
            else:
                self._answers = True
        return self._take()

    def finish(self) -> str:
        """End the text.

        Returns:
            The part of the answer that was held back.
        """
        if self._inside:
            self.reasoning += self._held
            self._held = ""
        return self._take()

    def _take(self) -> str:
        """Return what is held, without the empty lines between a block and what follows it."""
        held, self._held = self._held, ""
        if not self._trims:
            return held
        answer = held.lstrip()
        return f" {answer}" if self._has_begun and answer not in ("", held) else answer


def _begins(text: str, tags: Iterable[str]) -> str | None:
    """Return the longest of the tags that a text begins with."""
    found = [tag for tag in tags if text.lstrip().startswith(tag)]
    return max(found, key=len, default=None)


def _may_begin(text: str) -> bool:
    """Whether a text may grow into one that begins with a tag."""
    begun = text.lstrip()
    return any(tag.startswith(begun) for tags in TAGS for tag in tags)
