"""The interface of teacher prompts, and how to join them.

A teacher prompt is a `TeacherPrompt`, or any Runnable or function, async or not, from the
conversation to the messages for the teacher.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    MessageLikeRepresentation,
    convert_to_messages,
)
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor

from langchain_gkt.texts.reasoning import answer_in


@dataclass(frozen=True, kw_only=True)
class PreparedPrompt:
    """The teacher's prompt for one question. A teacher prompt may return it.

    Attributes:
        messages: The messages that the teacher sees.
        restore: Undoes the prompt's changes in the teacher's text, and in the texts of its tool
            calls. None if there is nothing to undo. It is called with the text so far. The result
            for a longer text must begin with the result for a shorter one.
        hint: Makes the beginning of the student's answer from a teacher's text that is not an
            answer itself. None if it is one. It is called with the text and whether the teacher
            ended it. An empty result leaves the student alone.
    """

    messages: Sequence[BaseMessage]
    restore: Callable[[str], str] | None = None
    hint: Callable[[str, bool], str] | None = None

    def restored(self, reply: AIMessage) -> AIMessage:
        """Undo the prompt's changes in a reply.

        Returns:
            The reply, or a changed copy.
        """
        if self.restore is None:
            return reply
        update: dict[str, Any] = {"content": _in_block(reply.content, self.restore)}
        for name in ("tool_calls", "invalid_tool_calls"):
            update[name] = [
                {**call, "args": _in_value(call["args"], self.restore)}
                for call in getattr(reply, name)
            ]
        if chunks := getattr(reply, "tool_call_chunks", None):  # of a streamed reply
            update["tool_call_chunks"] = [
                {**chunk, "args": _in_json(chunk["args"], self.restore)} for chunk in chunks
            ]
        return reply.model_copy(update=update)


@dataclass(kw_only=True)
class PromptContext:
    """The inputs of a teacher prompt besides the messages.

    Attributes:
        conversation: The whole conversation, as the student reads it.
        guidance_tokens: How many tokens of the teacher's answer are used.
        whole_reply: Whether the whole reply is used all the same, for a required tool call or JSON
            of a schema.
        whole_answer: Whether the teacher writes an answer that no student continues.
        has_tools: Whether the teacher may call tools.
        student: The student, for prompts that give it work. None if there is none.
        student_config: The config of its runs.
        student_arguments: Arguments of its calls.
        config: The config for Runnables.
        student_usage: The student's usage. None if it did nothing or reported nothing.
    """

    conversation: Sequence[BaseMessage] = ()
    guidance_tokens: int | None = None
    whole_reply: bool = False
    whole_answer: bool = False
    has_tools: bool = False
    student: Runnable[Any, Any] | None = None
    student_config: RunnableConfig | None = None
    student_arguments: dict[str, Any] = field(default_factory=dict)
    config: RunnableConfig | None = None
    student_usage: UsageMetadata | None = None

    def ask_student(self, messages: list[BaseMessage], *, max_tokens: int) -> str:
        """Have the student write a text of at most ``max_tokens`` tokens.

        Raises:
            ValueError: If there is no student.
        """
        student, arguments = self._student_call(max_tokens)
        return self._text(student.invoke(messages, self.student_config, **arguments))

    async def aask_student(self, messages: list[BaseMessage], *, max_tokens: int) -> str:
        """Do what `ask_student` does, on the event loop."""
        student, arguments = self._student_call(max_tokens)
        return self._text(await student.ainvoke(messages, self.student_config, **arguments))

    def _student_call(self, max_tokens: int) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        if self.student is None:
            raise ValueError("this teacher_prompt needs a student; use it in a chain")
        return self.student, {**self.student_arguments, "max_tokens": max_tokens}

    def _text(self, reply: AIMessage) -> str:
        if reply.usage_metadata:
            self.student_usage = add_usage(self.student_usage, reply.usage_metadata)
        return answer_in(str(reply.text))


class TeacherPrompt(ABC):
    """A teacher prompt that knows the call it is for. ``first | second`` joins two."""

    @abstractmethod
    def prepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> Sequence[BaseMessage] | PreparedPrompt:
        """Make the messages that the teacher sees.

        Args:
            messages: The conversation, or the result of the step before.
            context: Further facts about the call.

        Returns:
            The messages, or a `PreparedPrompt`.
        """

    async def aprepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> Sequence[BaseMessage] | PreparedPrompt:
        """Do what `prepare` does, on the event loop."""
        return self.prepare(messages, context)

    def for_tokens(self, tokens: int) -> TeacherPrompt:
        """Return the prompt for a fixed number of guidance tokens, whatever a call says.

        Args:
            tokens: The number.
        """
        return self

    def cache_note(self) -> str | None:
        """Describe how the prompt changes a cacheable beginning. None for no change."""
        return None

    def __or__(self, other: Any) -> TeacherPromptSequence:
        """Apply another prompt to this one's result."""
        return TeacherPromptSequence(steps=(self, other))

    def __ror__(self, other: Any) -> TeacherPromptSequence:
        """Apply this prompt to a function's result."""
        return TeacherPromptSequence(steps=(other, self))


TeacherPromptLike: TypeAlias = TeacherPrompt | Runnable[Any, Any] | Callable[..., Any] | None
"""Values of ``teacher_prompt``. None shows the teacher the whole conversation."""


@dataclass(frozen=True)
class TeacherPromptSequence(TeacherPrompt):
    """Teacher prompts one after the other. Their changes are undone in the opposite order.

    Attributes:
        steps: The prompts. Joined ones among them are taken apart.
    """

    steps: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Take joined prompts apart, and refuse anything that is not a prompt."""
        flat = [step for prompt in self.steps for step in steps_of(prompt)]
        object.__setattr__(self, "steps", tuple(map(check_teacher_prompt, flat)))

    def prepare(self, messages: Sequence[BaseMessage], context: PromptContext) -> PreparedPrompt:
        """Apply the prompts."""
        prepared = [PreparedPrompt(messages=messages)]
        for step in self.steps:
            prepared.append(prepare(step, prepared[-1].messages, context))
        return _joined(prepared)

    async def aprepare(
        self, messages: Sequence[BaseMessage], context: PromptContext
    ) -> PreparedPrompt:
        """Do what `prepare` does, on the event loop."""
        prepared = [PreparedPrompt(messages=messages)]
        for step in self.steps:
            prepared.append(await aprepare(step, prepared[-1].messages, context))
        return _joined(prepared)

    def for_tokens(self, tokens: int) -> TeacherPromptSequence:
        """Return the sequence of the prompts for a number of guidance tokens."""
        return TeacherPromptSequence(steps=tuple(for_tokens(step, tokens) for step in self.steps))


def steps_of(prompt: Any) -> tuple[Any, ...]:
    """Return the prompts of which a teacher prompt is joined. None has none."""
    if isinstance(prompt, TeacherPromptSequence):
        return prompt.steps
    return () if prompt is None else (prompt,)


def step_name(prompt: Any) -> str:
    """Return the name of a prompt's function or class."""
    return str(getattr(prompt, "__name__", type(prompt).__name__))


def check_teacher_prompt(value: Any, *, name: str = "teacher_prompt") -> Any:
    """Return a teacher prompt or None. Refuse another value of the field ``name``."""
    known = isinstance(value, TeacherPrompt | Runnable) or callable(value)
    if value is None or (known and not isinstance(value, type)):
        return value
    raise TypeError(
        f"{name} must be a TeacherPrompt such as WithoutExemplars(), a Runnable or a "
        f"function from a list of messages to a list of messages, or None, not {value!r}"
    )


def for_tokens(prompt: Any, tokens: int) -> Any:
    """Fix the number of guidance tokens that a prompt names, if it names one."""
    return prompt.for_tokens(tokens) if isinstance(prompt, TeacherPrompt) else prompt


def prepare(prompt: Any, messages: Sequence[BaseMessage], context: PromptContext) -> PreparedPrompt:
    """Make the teacher's prompt. Without a teacher prompt it is the conversation.

    Raises:
        ValueError: If the teacher prompt returns nothing, no messages or no text.
        TypeError: If it returns something else.
    """
    if prompt is None:
        return PreparedPrompt(messages=messages)
    if isinstance(prompt, TeacherPrompt):
        return _checked(prompt, prompt.prepare(messages, context))
    if isinstance(prompt, Runnable):
        return _checked(prompt, prompt.invoke(list(messages), context.config))
    result = prompt(list(messages))
    if inspect.isawaitable(result):
        result = _run_apart(result)
    return _checked(prompt, result)


async def aprepare(
    prompt: Any, messages: Sequence[BaseMessage], context: PromptContext
) -> PreparedPrompt:
    """Do what `prepare` does, on the event loop. A plain function runs in a thread."""
    if prompt is None:
        return PreparedPrompt(messages=messages)
    if isinstance(prompt, TeacherPrompt):
        return _checked(prompt, await prompt.aprepare(messages, context))
    if isinstance(prompt, Runnable):
        return _checked(prompt, await prompt.ainvoke(list(messages), context.config))
    result = await run_in_executor(None, prompt, list(messages))
    return _checked(prompt, await result if inspect.isawaitable(result) else result)


def _run_apart(awaitable: Awaitable[Any]) -> Any:
    """Await something in a thread of its own, where no event loop can be running yet."""

    async def wait() -> Any:
        return await awaitable

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, wait()).result()


def _checked(prompt: Any, result: Any) -> PreparedPrompt:
    """Refuse a prompt that a teacher cannot be asked, before it is paid."""
    name = f"teacher_prompt ({step_name(prompt)})"
    if isinstance(result, PreparedPrompt):
        return replace(result, messages=_messages(name, result.messages))
    return PreparedPrompt(messages=_messages(name, result))


def _messages(name: str, result: Any) -> list[BaseMessage]:
    wanted = "return the list of messages that the teacher is to see"
    if result is None:
        raise ValueError(f"{name} returned nothing (None); {wanted}")
    if isinstance(result, PromptValue):
        result = result.to_messages()
    elif isinstance(result, str):
        result = [HumanMessage(result)]
    elif isinstance(result, BaseMessage):
        result = [result]
    if not isinstance(result, Sequence):
        raise TypeError(f"{name} returned a {type(result).__name__}; {wanted}")
    parts: Sequence[MessageLikeRepresentation] = result
    try:
        messages = convert_to_messages(parts)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise TypeError(f"{name} returned no messages ({error}); {wanted}") from error
    if not any(str(m.text).strip() or not isinstance(m.content, str) for m in messages):
        raise ValueError(f"{name} returned no messages with text; {wanted}")
    return messages


def _joined(prepared: Sequence[PreparedPrompt]) -> PreparedPrompt:
    undo = [step.restore for step in prepared if step.restore is not None]
    hint = next((step.hint for step in reversed(prepared) if step.hint is not None), None)
    if not undo:
        return replace(prepared[-1], hint=hint)

    def restore(text: str) -> str:
        for undone in reversed(undo):
            text = undone(text)
        return text

    return PreparedPrompt(messages=prepared[-1].messages, restore=restore, hint=hint)


def _in_block(block: Any, restore: Callable[[str], str]) -> Any:
    """Undo changes in a message's content, or in one of its blocks of text."""
    if isinstance(block, list):
        return [_in_block(item, restore) for item in block]
    if isinstance(block, dict) and block.get("type") == "text":
        return {**block, "text": restore(block["text"])}
    return restore(block) if isinstance(block, str) else block


def _in_json(text: str | None, restore: Callable[[str], str]) -> str | None:
    """Undo changes in a text of JSON. A text that is not JSON has no strings of its own."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return text and restore(text)
    return json.dumps(_in_value(value, restore), ensure_ascii=False)


def _in_value(value: Any, restore: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return restore(value)
    if isinstance(value, list):
        return [_in_value(item, restore) for item in value]
    if isinstance(value, dict):
        return {key: _in_value(item, restore) for key, item in value.items()}
    return value
