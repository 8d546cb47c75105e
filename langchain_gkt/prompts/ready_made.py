"""The ready-made teacher prompts. They are plain data, so that a policy's file can hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Any, Literal, get_args

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

from langchain_gkt.errors import KnownFields, choice_field, count_field
from langchain_gkt.prompts.base import PromptContext, TeacherPrompt
from langchain_gkt.prompts.conversation import leading_system, turns, with_system_text
from langchain_gkt.prompts.exemplars import (
    describe_style,
    exemplars,
    is_exemplar,
    without_exemplars,
)

Style = Literal["describe", "example", "none"]

INSTRUCTION = (
    "Work it out step by step, with an equation in each step. A smaller model continues your first "
    "{tokens} tokens, so begin with the first step at once, without an introduction."
)
"""Default text of `InstructTeacher`.

A small teacher that heard only "its first tokens are used" wrote a bare answer without any step.
"""

_TOOLS = "A tool call is used whole: if one is needed, make it at once."
_SUMMARY_REQUEST = (
    "Summarise this conversation in a few sentences. Keep names, numbers, decisions and open "
    "questions.\n\n{transcript}"
)
_SUMMARY = "What was said before, in short:\n{summary}"
_CONFIG = ConfigDict(strict=True)


def _flag(name: str) -> BeforeValidator:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {value!r}")
        return value

    return BeforeValidator(check)


def _check_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"InstructTeacher.text must be a text that is not blank, not {value!r}")
    return value


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class WithoutExemplars(KnownFields, TeacherPrompt):
    """Leaves worked examples out of the teacher's prompt. The student still reads them.

    Examples are turns whose messages are marked, either with
    ``additional_kwargs={"example": True}`` or with the names ``example_user`` and
    ``example_assistant``. See `mark_exemplars`. The ``Q: ... A:`` blocks before the open question
    of a text prompt count as well.

    Attributes:
        keep: How many stay: the last ones, or the shortest.
        shortest: Whether those with the fewest characters stay, which are the cheapest to show.
        unmarked: Whether every turn before the last one counts as an example.
    """

    keep: Annotated[int, count_field("WithoutExemplars.keep", 0)] = 0
    shortest: Annotated[bool, _flag("WithoutExemplars.shortest")] = False
    unmarked: Annotated[bool, _flag("WithoutExemplars.unmarked")] = False

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> list[BaseMessage]:
        """Leave the examples out."""
        return without_exemplars(
            messages, self.keep, shortest=self.shortest, unmarked=self.unmarked
        )

    def cache_note(self) -> str:
        """Explain that a shorter beginning may be too short for a cache."""
        return (
            "drops worked examples, with which prompts begin alike: what is left may be too short "
            "for a provider's cache, and then costs the full price. KeepPrefix() keeps them"
        )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class LastTurns(KnownFields, TeacherPrompt):
    """Keeps the last turns only: a question of the user, and all that follows it.

    Attributes:
        count: How many turns. 1 for the open question.
        system: Whether the system messages at the beginning stay.
    """

    count: Annotated[int, count_field("LastTurns.count", 1)] = 1
    system: Annotated[bool, _flag("LastTurns.system")] = True

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> list[BaseMessage]:
        """Leave out the turns before them."""
        begin = leading_system(messages)
        kept = list(chain(*turns(messages[begin:])[-self.count :]))
        return [*messages[:begin], *kept] if self.system or not kept else kept

    def cache_note(self) -> str:
        """Explain that the beginning changes with each turn."""
        return (
            "drops turns from the front, worked examples too: a conversation then begins otherwise "
            "at each of its turns, and is found in no cache. KeepPrefix() keeps the front"
        )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class KeepPrefix(KnownFields, TeacherPrompt):
    """Keeps the common beginning of all prompts for a provider's cache, and shortens the rest.

    The front stays byte for byte: the system messages at the beginning, and the worked examples
    after them (`WithoutExemplars` says which count). Of all later turns, only the last ones stay.

    Attributes:
        count: How many turns after the front stay. 1 for the open question.
    """

    count: Annotated[int, count_field("KeepPrefix.count", 1)] = 1

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> list[BaseMessage]:
        """Leave out turns between the front and the last ones."""
        begin = leading_system(messages)
        every = turns(messages[begin:])
        front = next((i for i, turn in enumerate(every) if not all(map(is_exemplar, turn))), 0)
        return [*messages[:begin], *chain(*every[:front], *every[front:][-self.count :])]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class InstructTeacher(KnownFields, TeacherPrompt):
    """Tells the teacher in its system message that only the beginning of its answer is used.

    Calls whose whole reply is used, for a required tool call or an object of a schema, go without.
    So does a whole answer, if the instruction names the number of guidance tokens of the call.

    Attributes:
        text: The instruction. ``{tokens}`` stands for the number of tokens, ``{style}`` for the
            style, which is otherwise added at the end.
        style: How to tell it the style of the student's worked examples, so that the student can
            continue in it. ``describe``: in words. ``example``: by the shortest example. ``none``:
            not at all. Without examples there is no style.
        tokens: The number that the instruction names. None for the guidance tokens of the call.
    """

    text: Annotated[str, BeforeValidator(_check_text)] = INSTRUCTION
    style: Annotated[Style, choice_field("InstructTeacher.style", *get_args(Style))] = "describe"
    tokens: Annotated[int, count_field("InstructTeacher.tokens", 1)] | None = None

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> list[BaseMessage]:
        """Add the instruction."""
        tokens = context.guidance_tokens if self.tokens is None else self.tokens
        # "Only your first 40 tokens are used" would be false in a whole answer.
        goes_without = context.whole_answer and self._names_tokens_of_call
        if context.whole_reply or tokens is None or goes_without:
            return list(messages)
        style = self._style(context.conversation or messages)
        text = self.text if "{style}" in self.text else f"{self.text} {{style}}"
        text = text.replace("{tokens}", str(tokens)).replace("{style}", style).strip()
        if context.has_tools:
            text = f"{text} {_TOOLS}"
        return with_system_text(messages, text)

    def for_tokens(self, tokens: int) -> InstructTeacher:
        """Return the instruction with its number of tokens filled in."""
        return replace(self, tokens=tokens) if self.tokens is None else self

    def cache_note(self) -> str | None:
        """Explain that another number of tokens makes another beginning."""
        if not self._names_tokens_of_call:
            return None
        return (
            "names the number of tokens in the system message: each number makes another "
            "beginning, which is cached by itself. Give it tokens= where the number varies"
        )

    @property
    def _names_tokens_of_call(self) -> bool:
        return self.tokens is None and "{tokens}" in self.text

    def _style(self, conversation: Sequence[BaseMessage]) -> str:
        examples = exemplars(conversation)
        if self.style == "none" or not examples:
            return ""
        if self.style == "describe":
            return describe_style([said for _, said in examples])
        asked, said = min(examples, key=lambda pair: len(pair[0]) + len(pair[1]))
        return f"Write in the style of this example.\n\nQuestion: {asked}\nAnswer: {said}"


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class SummarizeOlder(KnownFields, TeacherPrompt):
    """Has the student sum up the older turns. The teacher reads the summary instead of them.

    The summary is a separate run of the student, on the bill. If the student writes nothing, the
    older turns stay as they are.

    Attributes:
        keep: How many turns stay as they are, the last ones.
        max_tokens: Maximum tokens of the summary.
    """

    keep: Annotated[int, count_field("SummarizeOlder.keep", 1)] = 1
    max_tokens: Annotated[int, count_field("SummarizeOlder.max_tokens", 1)] = 150

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> list[BaseMessage]:
        """Replace the older turns by a summary."""
        if not (request := self._request(messages)):
            return list(messages)
        return self._with(messages, context.ask_student(request, max_tokens=self.max_tokens))

    async def aprepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> list[BaseMessage]:
        """Do what `prepare` does, on the event loop."""
        if not (request := self._request(messages)):
            return list(messages)
        summary = await context.aask_student(request, max_tokens=self.max_tokens)
        return self._with(messages, summary)

    def _request(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        older = turns(messages[leading_system(messages) :])[: -self.keep]
        lines = [_line(message) for message in chain(*older)]
        if not lines:
            return []
        return [HumanMessage(_SUMMARY_REQUEST.format(transcript="\n".join(lines)))]

    def cache_note(self) -> str:
        """Explain that a summary makes a new beginning."""
        return (
            "puts a summary into the system message: each conversation then begins otherwise, and "
            "is found in no cache"
        )

    def _with(self, messages: Sequence[BaseMessage], summary: str) -> list[BaseMessage]:
        if not summary.strip():
            return list(messages)
        begin = leading_system(messages)
        rest = [*messages[:begin], *chain(*turns(messages[begin:])[-self.keep :])]
        return with_system_text(rest, _SUMMARY.format(summary=summary.strip()))


def _line(message: BaseMessage) -> str:
    speaker = "User"
    if isinstance(message, AIMessage):
        calls = ", ".join(f"{call['name']}({call['args']})" for call in message.tool_calls)
        return f"Assistant: {message.text}{f' [calls {calls}]' if calls else ''}"
    if isinstance(message, ToolMessage):
        speaker = "Tool"
    return f"{speaker}: {message.text}"
