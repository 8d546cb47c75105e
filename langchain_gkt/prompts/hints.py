"""Formats of a hint: dense notes of the teacher, which become the beginning of an answer.

The beginning of a whole answer is polite, not dense. A hint gives in few tokens what a small model
lacks (which calculation, which option). The student writes the answer after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args

from langchain_core.messages import BaseMessage
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

from langchain_gkt.errors import KnownFields
from langchain_gkt.prompts.base import PreparedPrompt, PromptContext, TeacherPrompt
from langchain_gkt.prompts.conversation import with_system_text
from langchain_gkt.texts.arithmetic import worked_lines
from langchain_gkt.texts.options import extract_option

HintFormat = Literal["equations", "draft", "option", "short"]


def _equations(text: str, is_whole: bool) -> str:
    # The last line of a truncated text may be half a calculation.
    return worked_lines(text if is_whole else text.rpartition("\n")[0])


def _draft(text: str, is_whole: bool) -> str:
    return f"Draft: {text.strip()}\n\nAnswer:" if text.strip() else ""


def option_hint(text: str, is_whole: bool = True) -> str:
    """Return the beginning of an answer with the option in a text. Empty if it has none."""
    letter = extract_option(text)
    return f"The answer is ({letter}) because" if letter else ""


def _short(text: str, is_whole: bool) -> str:
    return f"In short: {text.strip()}\n\nIn full:" if text.strip() else ""


_FORMATS: dict[str, tuple[str, Callable[[str, bool], str]]] = {
    "equations": (
        "Do not solve the task. Write only its calculations, one in each line, as `name = "
        "expression` with numbers, earlier names and + - * / ( ), such as `eggs_left = 16 - 3 - 4` "
        "and then `money = eggs_left * 2`. Do not write results, units or other text.",
        _equations,
    ),
    "draft": (
        "Do not write the answer. Write a draft of it: each step in a line of five words at most.",
        _draft,
    ),
    "option": ("Reply with the letter of the right option and nothing else.", option_hint),
    "short": (
        "Answer in as few words as you can: one short line for each step, and then the result.",
        _short,
    ),
}


def _check_format(value: Any) -> Any:
    if value not in get_args(HintFormat):
        known = ", ".join(map(repr, get_args(HintFormat)))
        raise ValueError(f"HintPrompt.format must be one of {known}, not {value!r}")
    return value


def _check_instruction(value: Any) -> Any:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"HintPrompt.text must be a text that is not blank or None, not {value!r}")
    return value


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True))
class HintPrompt(KnownFields, TeacherPrompt):
    """Asks the teacher for a hint instead of the beginning of its answer.

    The hint becomes the beginning of the student's answer, even if the teacher ended it before its
    limit. It is shown only when it is whole. A text that is not a readable hint is dropped, and the
    student answers alone. There is no hint if the teacher answers the whole turn, or if the call
    has tools or a schema.

    Attributes:
        format: The kind of hint. ``equations``: the calculations without results, which this
            package calculates, so that no model has to. ``draft``: the steps in a few words each
            (chain of draft, Xu et al. 2025). ``option``: the letter of an option, which the student
            explains. ``short``: the whole answer, as short as possible.
        text: The teacher's instruction. None for the format's own instruction.
    """

    format: Annotated[HintFormat, BeforeValidator(_check_format)]
    text: Annotated[str | None, BeforeValidator(_check_instruction)] = None

    def prepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> Sequence[BaseMessage] | PreparedPrompt:
        """Add the instruction, and set how to read the hint."""
        if context.whole_reply or context.whole_answer or context.has_tools:
            return list(messages)
        instruction, read = _FORMATS[self.format]
        return PreparedPrompt(
            messages=with_system_text(messages, self.text or instruction), hint=read
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsHint(TeacherPrompt):
    """Shows a prompt also to a teacher that answers alone, so that a sweep can cut its hints.

    Attributes:
        prompt: The prompt.
    """

    prompt: TeacherPrompt

    def prepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> Sequence[BaseMessage] | PreparedPrompt:
        """Apply the prompt as if the student finished the answer."""
        return self.prompt.prepare(messages, dataclasses.replace(context, whole_answer=False))

    async def aprepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> Sequence[BaseMessage] | PreparedPrompt:
        """Do what `prepare` does, on the event loop."""
        return await self.prompt.aprepare(
            messages, dataclasses.replace(context, whole_answer=False)
        )
