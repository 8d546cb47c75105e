"""Messages and the beginning of an answer -> token ids, with control tokens in them as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import merge_message_runs

from langchain_gkt.errors import refuse_broken_text
from langchain_gkt.students.tokenization.chat_template import (
    REASONING_OFF,
    ChatTemplate,
    as_dicts,
    turns_reasoning_off,
)
from langchain_gkt.students.tokenization.control_tokens import (
    AllowedTokens,
    ControlTokens,
    CoveredText,
)
from langchain_gkt.students.tokenization.truncation import truncate
from langchain_gkt.texts.begun_answer import begun_text, is_begun_answer


class WrittenPrompt(NamedTuple):
    """A prompt as token ids."""

    ids: list[int]  # of the conversation, with the header of the answer
    answer_prefix: list[int]  # of the answer's beginning. May be empty
    header: str  # what the chat template wrote after the last message. Empty without one


class PromptBuilder:
    """Turns conversations into ids for one tokenizer.

    The builder tokenises the conversation and the beginning of the answer separately and joins
    their ids, because chat templates that continue a last message trim it or add to it.
    """

    def __init__(self, tokenizer: Any, allowed: AllowedTokens = ()) -> None:
        """Prepare a second tokenizer that reads control tokens as plain text.

        Args:
            tokenizer: A fast Hugging Face tokenizer.
            allowed: Added tokens that messages may hold as well. An unknown one is a ValueError.
        """
        self.tokenizer, self._allowed = tokenizer, allowed
        self._control_tokens = ControlTokens(tokenizer, allowed)
        self.template = ChatTemplate(tokenizer)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the second tokenizer."""
        return type(self), (self.tokenizer, self._allowed)

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template has a place for tools."""
        return self.template.knows_tools

    def build(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] | None = None
    ) -> tuple[list[int], list[int]]:
        """Return only the ids of `write`: the prompt's, and those of the answer's beginning."""
        written = self.write(messages, tools)
        return written.ids, written.answer_prefix

    def write(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
        direct: bool = False,
    ) -> WrittenPrompt:
        """Tokenise a conversation.

        Args:
            messages: The conversation. A trailing AIMessage is the beginning of the answer,
                unless it holds tool calls.
            tools: Tools in OpenAI's form, for a template that knows them.
            template_kwargs: Further arguments of the chat template.
            direct: Whether the answer follows the prompt without reasoning. Always so after the
                beginning of an answer, which must not become part of the reasoning.

        Raises:
            ValueError: If there is nothing to answer, a message holds more than text, the chat
                template refuses or drops a message, or the tokenizer cannot spell the beginning of
                the answer.
        """
        conversation, prefill = list(messages), ""
        if messages and is_begun_answer(messages[-1]):
            prefill, direct = str(conversation.pop().text), True
        for position, message in enumerate(messages):
            _refuse_media(message, position)
        refuse_broken_text(messages)
        if not any(str(message.text).strip() for message in conversation):
            raise ValueError("messages must hold some text to answer; the prompt is empty")
        if self.template.text:
            ids, header = self._by_template(conversation, tools, template_kwargs or {}, direct)
            return WrittenPrompt(ids, self._ids(prefill), header)
        if template_kwargs:
            raise ValueError(
                f"chat_template_kwargs={dict(template_kwargs)!r} has no effect on a student "
                "without a chat template; leave it out"
            )
        text = _plain_text(tools_as_text(conversation))
        if prefill and text[-1:].strip():
            # "A:" is followed by a space, a question by a new line.
            if not text.endswith(":"):
                prefill = prefill if prefill.startswith("\n") else f"\n{prefill}"
            elif prefill[0].strip():
                prefill = f" {prefill}"
        covered = CoveredText(self._control_tokens, text)
        ids = self._control_tokens.surround(covered.ids(covered.of(text)))
        return WrittenPrompt(ids, self._ids(prefill), "")

    def _by_template(
        self,
        conversation: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any]] | None,
        arguments: Mapping[str, Any],
        direct: bool,
    ) -> tuple[list[int], str]:
        """Return a conversation's ids by the chat template, and the header that it wrote last."""
        if direct or turns_reasoning_off(arguments):
            direct, arguments = True, {**arguments, **REASONING_OFF}
        template, offered = self.template, None
        if not template.knows_tools:
            conversation = tools_as_text(conversation)
        elif tools:
            offered = list(tools)
        arranged, header = template.arrange(conversation, offered, arguments)
        turns = as_dicts(arranged)
        covered = CoveredText(self._control_tokens, turns, offered, arguments)
        written = template.render(covered.of(turns), covered.of(offered), covered.of(arguments))
        if not written.endswith(header):  # the messages change it, as "/no_think" does
            header = template.header(turns, offered, arguments)
        surplus, start = template.start(header, direct=direct)
        written = written[: len(written) - surplus] + start
        return covered.ids(written), header[: len(header) - surplus] + start

    def build_truncated(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any]] | None,
        limit: int,
        **how: Any,
    ) -> WrittenPrompt:
        """Tokenise a conversation as `write` does, without its oldest turns, so that it fits.

        See `truncate` for what stays. If that alone is too long, the prompt is still too long. The
        limit counts the ids of prompt and beginning together.
        """

        def fits(kept: Sequence[BaseMessage]) -> bool:
            ids, prefix, _ = self.write(kept, tools, **how)
            return len(ids) + len(prefix) <= limit

        return self.write(truncate(messages, fits), tools, **how)

    def writes_frame(self, messages: Sequence[BaseMessage]) -> bool:
        """Whether a conversation without a template is written as questions and answers."""
        begun = begun_text(messages) is not None
        turns = [m for m in messages[: -1 if begun else None] if not isinstance(m, SystemMessage)]
        return not self.template.text and len(turns) > 1

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        covered = CoveredText(self._control_tokens, text)
        ids, pieces = covered.encode(covered.of(text))
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise ValueError(
                f"the beginning of the answer (messages[-1], or the guidance) holds "
                f"{pieces[ids.index(unknown)][:20]!r}, which the student's tokenizer cannot spell; "
                "leave it out, or use a student whose tokenizer can write any text (byte-level "
                "ones can)"
            )
        return ids


def tools_as_text(conversation: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Write tool calls and results as text, for a template that has no place for them."""
    if not any(isinstance(m, ToolMessage) or getattr(m, "tool_calls", None) for m in conversation):
        return list(conversation)
    names: dict[str | None, str] = {}
    spelled: list[BaseMessage] = []
    for message in conversation:
        text = str(message.text)
        if isinstance(message, ToolMessage):
            name = message.name or names.get(message.tool_call_id, "the tool")
            spelled.append(HumanMessage(f"Result of {name}: {text}"))
        elif isinstance(message, AIMessage) and message.tool_calls:
            names |= {call["id"]: call["name"] for call in message.tool_calls}
            calls = [
                f"Call {call['name']}({json.dumps(call['args'], ensure_ascii=False)})"
                for call in message.tool_calls
            ]
            spelled.append(AIMessage("\n".join(filter(None, [text, *calls]))))
        else:
            spelled.append(message)
    # Two results in a row are one turn of the user.
    return merge_message_runs(spelled)


def _plain_text(conversation: Sequence[BaseMessage]) -> str:
    """Write a conversation for a base model, as few-shot questions and answers."""
    system = [str(m.text).strip() for m in conversation if isinstance(m, SystemMessage)]
    turns = [m for m in conversation if not isinstance(m, SystemMessage)]
    if len(turns) == 1:
        # A single message is a prompt that the user has already written out.
        return "\n\n".join([*system, str(turns[0].text)])
    spoken = [f"{'A' if isinstance(m, AIMessage) else 'Q'}: {str(m.text).strip()}" for m in turns]
    return "\n\n".join(system) + ("\n\n" if system else "") + "\n".join(spoken) + "\nA:"


# Content blocks that are text, or whose text or tool call is read elsewhere.
_READABLE = {
    "text",
    "reasoning",
    "reasoning_content",
    "thinking",
    "redacted_thinking",
    "refusal",
    "tool_use",
    "tool_result",
    "tool_call",
    "tool_call_chunk",
    "invalid_tool_call",
    "input_json_delta",
    "function_call",
}


def _refuse_media(message: BaseMessage, position: int) -> None:
    if isinstance(message.content, str):
        return
    for block in message.content:
        kind = "text" if isinstance(block, str) else block.get("type")
        if kind not in _READABLE:
            raise ValueError(
                f"messages[{position}] ({message.type}) holds a block of type {kind!r}; "
                "the student reads text only"
            )
