"""Harmony, the answer format of gpt-oss: messages on channels, one of them for the user."""

from __future__ import annotations

import re

from langchain_gkt.texts.stop_strings import before_stop

CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
_START, _END = "<|start|>", "<|end|>"
_FINAL = f"{CHANNEL}final{MESSAGE}"
# Some models leave out the end of a message.
_ENDS = (_END, "<|return|>", "<|call|>", _START, CHANNEL)
_MARKS = re.compile("|".join(map(re.escape, (*_ENDS, MESSAGE))))
HEADERS = (CHANNEL, f"{_START}assistant")
"""Beginning of an answer on channels."""


def is_harmony(template: str) -> bool:
    """Whether a chat template writes answers as messages on channels."""
    return CHANNEL in template and MESSAGE in template


def to_final(header: str) -> tuple[int, str]:
    """Return how many characters to remove from a prompt, and what to add, for the final channel.

    Args:
        header: The end of a prompt, from its last message on.
    """
    opened = header.rpartition(_START)[2]
    if MESSAGE in opened:
        if _channel(opened) == "final":
            return 0, ""
        return 0, f"{_END}{_START}assistant{_FINAL}"
    named = len(opened) - opened.find(CHANNEL) if CHANNEL in opened else 0
    return named, _FINAL


class HarmonyFilter:
    """Extracts the text of the final channel, and the tool calls, from a growing answer."""

    def __init__(self, header: str) -> None:
        """Start at the end of a prompt. The header begins with its last message."""
        self._head: str | None = header.rpartition(_START)[2]  # None inside a message
        self._shows, self._recipient, self._held, self._body = False, "", "", ""
        self._has_message = False
        self.reasoning = ""
        """The text that was taken out."""
        self.calls: list[tuple[str, str]] = []
        """Names of the called tools, and their arguments as written."""
        if MESSAGE in self._head:
            self._open(self._head.partition(MESSAGE)[0])

    def feed(self, text: str) -> str:
        """Take new text, control tokens included. See `ReasoningFilter.feed`."""
        self._held += text
        shown = ""
        while True:
            marks = (MESSAGE,) if self._head is not None else _ENDS
            mark = min((m for m in marks if m in self._held), key=self._held.find, default=None)
            if mark is None:
                part = before_stop(self._held, marks)
                self._held = self._held[len(part) :]
                return shown + self._take(part)
            part, _, self._held = self._held.partition(mark)
            shown += self._take(part)
            if self._head is not None:
                self._open(self._head)
            else:
                self._close()
                self._head = CHANNEL if mark == CHANNEL else ""

    def finish(self) -> str:
        """End the text. See `ReasoningFilter.finish`."""
        shown = self._take(self._held)
        self._held = ""
        if self._head is None:
            self._close()
        elif not self._has_message:  # a model that knows no channels
            return _MARKS.split(self._head.removeprefix("assistant"))[0]
        return shown

    def _open(self, head: str) -> None:
        self._has_message = True
        recipient = re.search(r"to=([\w.-]+)", head)
        self._recipient = recipient[1].removeprefix("functions.") if recipient else ""
        writer = re.match(r"\w*", head.rpartition(_START)[2])
        writes = writer is not None and writer[0] in ("", "assistant")
        self._shows = writes and not self._recipient and _channel(head) in ("final", None)
        self._head, self._body = None, ""

    def _close(self) -> None:
        if self._recipient:
            self.calls.append((self._recipient, self._body.strip()))
        self._head, self._body, self._recipient = "", "", ""

    def _take(self, text: str) -> str:
        if self._head is not None:
            self._head += text
            return ""
        if self._shows:
            return text
        if self._recipient:
            self._body += text
        else:
            self.reasoning += text
        return ""


def _channel(head: str) -> str | None:
    match = re.search(rf"{re.escape(CHANNEL)}\s*(\w+)", head)
    return match[1].lower() if match else None
