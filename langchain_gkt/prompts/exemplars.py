"""Worked examples in a prompt: which turns they are, and the style of their answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    MessageLikeRepresentation,
    convert_to_messages,
)

from langchain_gkt.prompts.conversation import leading_system, turns
from langchain_gkt.texts.edges import sentences

T = TypeVar("T")

EXAMPLE_MARK = "example"
"""Key of ``additional_kwargs`` whose true value marks a message as part of an example."""

_EXAMPLE_NAMES = ("example_user", "example_assistant")
# "Q: ...\nA: ..." blocks with a blank line between them. The last one ends in "A:".
_BLOCKS = re.compile(r"(?:\A|\n\n)(?=Q: )")
_ANSWERED = re.compile(r"Q: (.+?)\nA: (.+)", re.DOTALL)
_ASKED = re.compile(r"Q: .+\nA:\s*", re.DOTALL)
_EQUATION = re.compile(
    r"\$?\d[\d.,]*(?:\s*[-+*/\u00d7\u00f7]\s*\$?\d[\d.,]*)+\s*=\s*\$?\d[\d,]*(?:\.\d+)?"
)
_MARKUP = re.compile(r"\\[(\[]|\$\$|\*\*|^#|^\s*[-*]\s|```", re.MULTILINE)


def mark_exemplars(messages: Iterable[MessageLikeRepresentation]) -> list[BaseMessage]:
    """Mark messages as worked examples, so that `WithoutExemplars` can leave them out.

    Args:
        messages: Questions and their answers, such as a `FewShotChatMessagePromptTemplate` makes,
            in any form that LangChain knows.

    Returns:
        Copies with ``additional_kwargs["example"] = True``, which is sent to no provider.
    """
    return [
        message.model_copy(
            update={"additional_kwargs": {**message.additional_kwargs, EXAMPLE_MARK: True}}
        )
        for message in convert_to_messages(list(messages))
    ]


def is_exemplar(message: BaseMessage) -> bool:
    """Whether a message is marked as part of a worked example.

    The mark is ``additional_kwargs["example"]``, or one of the names of LangChain's own pages.
    """
    return bool(message.additional_kwargs.get(EXAMPLE_MARK)) or message.name in _EXAMPLE_NAMES


def without_exemplars(
    messages: Sequence[BaseMessage], keep: int, *, shortest: bool = False, unmarked: bool = False
) -> list[BaseMessage]:
    """Leave worked examples out of a conversation.

    Args:
        messages: The conversation.
        keep: How many of them stay.
        shortest: Whether those with the fewest characters stay, not the last ones.
        unmarked: Whether every turn before the last one counts as an example.
    """
    begin = leading_system(messages)
    every = turns(messages[begin:])
    examples = [
        i
        for i, turn in enumerate(every)
        if all(map(is_exemplar, turn)) or (unmarked and i < len(every) - 1)
    ]
    dropped = _dropped(examples, lambda i: sum(len(str(m.text)) for m in every[i]), keep, shortest)
    rest = [message for i, turn in enumerate(every) if i not in dropped for message in turn]
    return [*messages[:begin], *(_shortened(message, keep, shortest) for message in rest)]


def _dropped(
    examples: Sequence[T], length: Callable[[T], int], keep: int, shortest: bool
) -> set[T]:
    """Return the examples to drop. Of two equally short ones, the later one stays."""
    ordered = sorted(examples, key=lambda example: -length(example)) if shortest else examples
    return set(ordered[: max(0, len(ordered) - keep)])


def exemplars(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    """Return the questions and answers of marked examples, and of those in ``Q: ... A:`` texts."""
    pairs = []
    for turn in turns(messages[leading_system(messages) :]):
        if all(map(is_exemplar, turn)):
            asked = "\n".join(str(m.text) for m in turn if isinstance(m, HumanMessage))
            said = "\n".join(str(m.text) for m in turn if isinstance(m, AIMessage))
            pairs.append((asked, said))
    for message in messages:
        pairs += [(block[1].strip(), block[2].strip()) for block in _text_exemplars(message)]
    return [(asked, said) for asked, said in pairs if said.strip()]


def describe_style(answers: Sequence[str]) -> str:
    """Describe the style of worked answers in words: layout, length, equations, ending."""
    counts = [len(sentences(answer)) for answer in answers]
    low, high = min(counts), max(counts)
    length = f"{low}" if low == high else f"{low} to {high}"
    unit = "sentence" if high == 1 else "sentences"
    if any("\n" in answer.strip() for answer in answers):
        parts = [f"{length} lines or {unit}"]
    else:
        parts = [f"one paragraph of {length} short {unit}"]
    if not any(map(_MARKUP.search, answers)):
        parts.append("no headings, lists, LaTeX or code")
    if equation := next(filter(None, map(_EQUATION.search, answers)), None):
        parts.append(f"equations written as {equation[0]}")
    if ending := _common_ending(answers):
        parts.append(f'the last sentence begins with "{ending}"')
    return f"Style: {'; '.join(parts)}."


def _common_ending(answers: Sequence[str]) -> str:
    """Return the words with which all last sentences begin. Empty if fewer than two."""
    if len(answers) < 2:
        return ""
    endings = [sentences(answer)[-1].split() for answer in answers]
    same = takewhile(lambda words: len(set(words)) == 1, zip(*endings, strict=False))
    shared = [words[0] for words in same]
    return " ".join(shared) if len(shared) > 1 else ""


def _text_of(block: Any) -> str:
    if isinstance(block, str):
        return block
    return str(block.get("text") or "") if block.get("type") == "text" else ""


def _text_exemplars(message: BaseMessage) -> list[re.Match[str]]:
    """Return the answered blocks of a text that ends in an open question."""
    if not isinstance(message, HumanMessage):
        return []
    blocks = [message.content] if isinstance(message.content, str) else message.content
    parts = [part for block in blocks for part in _BLOCKS.split(_text_of(block)) if part.strip()]
    if not parts or not _ASKED.fullmatch(parts[-1].strip("\n")):
        return []
    return [match for part in parts[:-1] if (match := _ANSWERED.fullmatch(part.strip()))]


def _shortened(message: BaseMessage, keep: int, shortest: bool) -> BaseMessage:
    """Leave answered blocks out of a text prompt."""
    if not (answered := [block[0] for block in _text_exemplars(message)]):
        return message
    dropped = _dropped(answered, len, keep, shortest)

    def rest(text: str) -> str:
        parts = [part for part in _BLOCKS.split(text) if part and part.strip() not in dropped]
        return "\n\n".join(parts)

    if isinstance(message.content, str):
        return message.model_copy(update={"content": rest(message.content)})
    content: list[Any] = []
    for block in message.content:
        text = _text_of(block)
        if not text:
            content.append(block)
        elif left := rest(text):
            content.append(left if isinstance(block, str) else {**block, "text": left})
    return message.model_copy(update={"content": content})
