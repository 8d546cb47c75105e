"""The reasoning that a model writes before its answer, between tags."""

from __future__ import annotations

import re
from collections.abc import Iterable

from langchain_gkt.texts.harmony import HEADERS, HarmonyFilter

Tags = tuple[str, str]
"""The marks that open and close a block of reasoning."""

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "analysis")
TAGS: tuple[Tags, ...] = (
    *((f"<{name}>", f"</{name}>") for name in _NAMES),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
"""The known models' tags, the usual ones first. Case does not matter."""

_ANY_NAME = "|".join(_NAMES)
# Some templates open the block in the prompt. A tag in the middle of a line is a quotation.
_CLOSED = re.compile(
    rf"(?:(?!<(?:{_ANY_NAME})>).)*?(?:\A|\n)\s*</(?:{_ANY_NAME})>\s*", re.DOTALL | re.IGNORECASE
)
# The form of tags, and how the opening one's content makes the closing one.
_FORMS = (
    (re.compile(r"<([A-Za-z][\w:-]*)>"), "</{0}>"),
    (re.compile(r"<\|(?:begin|start)_of_(\w+)\|>"), "<|end_of_{0}|>"),
    (re.compile(r"<\|(?:begin|start)_(\w+)\|>"), "<|end_{0}|>"),
    (re.compile(r"<\|(?:BEGIN|START)_OF_(\w+)\|>"), "<|END_OF_{0}|>"),
    (re.compile(r"<\|(?:BEGIN|START)_(\w+)\|>"), "<|END_{0}|>"),
    (re.compile(r"<\|(\w+?)_(?:begin|start)\|>"), "<|{0}_end|>"),
    (re.compile(r"<\|(?!end_|END_)(\w+)(?<!_end)(?<!_END)\|>"), "<|/{0}|>"),
    (re.compile(r"\[(\w+)\]"), "[/{0}]"),
)
# What is left of channels where a server leaves out their marks.
_BARE = ("analysis", "assistantfinal")
_BARE_BEGIN = re.compile(r"\s*analysis(?=[A-Z])")
_MARKS = tuple(mark.lower() for mark in (*(tag for tags in TAGS for tag in tags), *HEADERS))
# Most texts begin with none of these, which is quickly told. An empty text may become any.
_FIRST = {"", *(mark[0] for mark in _MARKS)}
_REASONS = re.compile("think|thought|reason|analy|reflect|scratch|deliberat|rationale", re.I)
_SPEAKERS = re.compile("assistant|model|bot|gpt|ai|system|user|human|answer|response|output", re.I)


def _pairs(text: str, *, source: str = "") -> list[tuple[int, Tags]]:
    """Return the tags that open a block of reasoning, by their form, and where they end.

    A tag that the template ``source`` closes may have any name but a speaker's.
    """
    openings: dict[int, tuple[int, Tags]] = {}
    for form, end in _FORMS:
        for match in form.finditer(text):
            tags, name = (match[0], end.format(match[1])), match[1]
            named = tags[1] in source and not _SPEAKERS.fullmatch(name)
            if (_REASONS.search(name) or named) and match.start() not in openings:
                openings[match.start()] = (match.end(), tags)
    return [openings[start] for start in sorted(openings)]


def _search(tag: str, text: str) -> re.Match[str] | None:
    return re.search(re.escape(tag), text, re.IGNORECASE)


def tags_in(text: str) -> Tags | None:
    """Return the tags that a chat template closes reasoning with, or None."""
    for opened, closed in TAGS:
        if end := _search(closed, text):
            begin = _search(opened, text)
            return begin[0] if begin else opened, end[0]
    return next((tags for _, tags in _pairs(text) if tags[1] in text), None)


def is_tag(token: str) -> bool:
    """Whether a token's text opens or closes a block of reasoning."""
    if any(token.lower() == tag.lower() for tags in TAGS for tag in tags):
        return True
    return bool(_REASONS.search(token)) and bool(re.fullmatch(r"<\|[\w/]+\|>|</?[\w:-]+>", token))


def open_tags(header: str, marks: Iterable[str] = (), source: str = "") -> Tags | None:
    """Return the tags of the reasoning block that a text ends in, or None.

    Args:
        header: The end of a prompt, from its last message on.
        marks: Texts of control tokens. One after a tag shows that the tag is only a mention.
        source: The chat template. An unknown tag opens a block if it ends the prompt and the
            template closes it elsewhere.
    """
    marks = list(marks)
    for opened, closed in TAGS:
        matches = [*re.finditer(re.escape(opened), header, re.IGNORECASE)]
        rest = header[matches[-1].end() :] if matches else ""
        if matches and not _search(closed, rest) and not any(mark in rest for mark in marks):
            opening = matches[-1][0]
            if opening == opened:
                return opened, closed
            shouted = closed.upper() if opening.isupper() else closed
            return opening, opening.replace("<", "</", 1) if closed[:2] == "</" else shouted
    ends = [tags for end, tags in _pairs(header, source=source) if not header[end:].strip()]
    return ends[-1] if ends else None


def without_reasoning(written: str) -> str:
    """Leave out the reasoning that some models write at the beginning of a reply, between tags.

    A closing tag alone at the beginning of a line ends such a block, too. Apart from that, the
    result for a longer text begins with the result for a shorter one. It is empty if the reasoning
    has not ended.
    """
    return ReasoningFilter().feed(written[_closed_at(written) :])


def answer_in(text: str, *, has_begun: bool = False) -> str:
    """Leave out the reasoning before a whole answer, which may continue a beginning."""
    reader = ReasoningFilter(has_begun=has_begun)
    return reader.feed(text if has_begun else text[_closed_at(text) :]) + reader.finish()


def _closed_at(text: str) -> int:
    closed = _CLOSED.match(text)
    return closed.end() if closed else 0


def closing(header: str, tags: Tags) -> str:
    """Return the text that closes a reasoning block which a text has opened."""
    if not tags[1].startswith("</"):
        return tags[1]
    rest = header.rpartition(tags[0])[2]
    return f"{'' if rest.endswith(chr(10)) else chr(10)}\n{tags[1]}\n\n"


class ReasoningFilter:
    """Removes the reasoning from a growing answer, however its tags are split."""

    def __init__(self, opened: Tags | None = None, *, has_begun: bool = False) -> None:
        """Start in the block that the prompt ends in, if any. The answer may have begun before."""
        self._inside, self._has_begun = opened, has_begun
        self._held, self._answers, self._trims = "", False, False
        self._channels: HarmonyFilter | None = None
        self.reasoning = ""
        """The removed text, with its tags."""

    def feed(self, text: str) -> str:
        """Take new text, and return the part that is certain to belong to the answer."""
        if self._channels is not None:
            shown = self._channels.feed(text)
            self.reasoning = self._channels.reasoning
            return shown
        if self._answers:
            return text
        self._held += text
        if not self._inside and self._held.lstrip().startswith(HEADERS):
            self._channels = HarmonyFilter("<|start|>")
            held, self._held = self._held.lstrip().removeprefix("<|start|>"), ""
            return self.feed(held)
        while not self._answers:
            if self._inside:
                end = _search(self._inside[1], self._held)
                if not end:  # the closing tag may be split
                    return ""
                self.reasoning += self._held[: end.end()]
                self._inside, self._held, self._trims = None, self._held[end.end() :], True
            elif opening := _beginning(self._held):
                size, self._inside = opening
                self.reasoning += self._held[:size]
                self._held, self._trims = self._held[size:], True
            elif _may_begin(self._held):
                return ""
            else:
                self._answers = True
        return self._take()

    def finish(self) -> str:
        """End the text, and return the part of the answer that was held back."""
        if self._channels is not None:
            shown = self._channels.finish()
            self.reasoning = self._channels.reasoning
            return shown
        if self._inside:
            self.reasoning += self._held
            self._held = ""
        return self._take()

    def _take(self) -> str:
        """Return the held text, without the empty lines between a block and the text after it."""
        held, self._held = self._held, ""
        if not self._trims:
            return held
        answer = held.lstrip()
        return f" {answer}" if self._has_begun and answer not in ("", held) else answer


def _beginning(text: str) -> tuple[int, Tags | None] | None:
    """Return the size of the tag that a text begins with, and the block if the tag opens one."""
    if bare := _BARE_BEGIN.match(text):
        return bare.end(), _BARE
    begun = text.lstrip().lower()
    if begun[:1] not in _FIRST:
        return None
    fitting = [
        (len(tag), tags if tag is tags[0] else None)
        for tags in TAGS
        for tag in tags
        if begun.startswith(tag.lower())
    ]
    if not fitting:
        return None
    size, tags = max(fitting, key=lambda pair: pair[0])
    return len(text) - len(text.lstrip()) + size, tags


def _may_begin(text: str) -> bool:
    """Whether a text may grow into one that begins with a tag."""
    begun = text.lstrip()
    if begun[:1].lower() not in _FIRST:
        # A word is held back only as a whole: "a" may be an answer.
        return begun == _BARE[0]
    return any(mark.startswith(begun.lower()) for mark in _MARKS)
