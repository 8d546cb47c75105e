"""Messages and the beginning of an answer -> token ids; control tokens in them stay text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import convert_to_openai_messages, merge_message_runs

from langchain_gkt.errors import ConfigurationError, refuse_broken_text
from langchain_gkt.students.tokenization.control_tokens import (
    AllowedTokens,
    ControlTokens,
    CoveredText,
)
from langchain_gkt.students.tokenization.truncation import truncate
from langchain_gkt.texts.begun_answer import begun_text, is_begun_answer


class PromptBuilder:
    """Turns conversations into ids for one tokenizer.

    The conversation and the beginning of the answer are tokenised separately and joined as
    ids, because chat templates that continue a last message trim it or add to it.
    """

    def __init__(self, tokenizer: Any, allowed: AllowedTokens = ()) -> None:
        """Prepare a second tokenizer that reads control tokens as plain text.

        Args:
            tokenizer: A fast Hugging Face tokenizer.
            allowed: Added tokens that messages may hold as well; see `HuggingFaceStudent`.

        Raises:
            ValueError: If one of them is no added token of the tokenizer.
        """
        self.tokenizer, self._allowed = tokenizer, allowed
        self._control_tokens = ControlTokens(tokenizer, allowed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the second tokenizer."""
        return type(self), (self.tokenizer, self._allowed)

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the chat template has a place for tools."""
        if not self.tokenizer.chat_template:
            return False
        return bool(re.search(r"\btools\b", self.tokenizer.get_chat_template(tools=[{}])))

    def build(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] | None = None
    ) -> tuple[list[int], list[int]]:
        """Tokenise a conversation.

        Args:
            messages: The conversation. A trailing AIMessage is the beginning of the answer,
                unless it holds tool calls.
            tools: Tools in OpenAI's form, for a template that knows them.

        Returns:
            Ids of the prompt, and ids of the beginning of the answer (may be empty).

        Raises:
            ValueError: If there is nothing to answer, a message holds more than text, or the
                tokenizer cannot spell the beginning of the answer.
        """
        conversation, prefill = list(messages), ""
        if messages and is_begun_answer(messages[-1]):
            prefill = str(conversation.pop().text)
        for position, message in enumerate(messages):
            _refuse_media(message, position)
        refuse_broken_text(messages)
        if not any(str(message.text).strip() for message in conversation):
            raise ValueError("messages must hold some text to answer; the prompt is empty")
        if self.tokenizer.chat_template:
            knows_tools = self.knows_tools
            turns = _as_dicts(conversation if knows_tools else _tools_as_text(conversation))
            offered = list(tools) if tools and knows_tools else None
            covered = CoveredText(self._control_tokens, turns, offered)
            try:
                written = self.tokenizer.apply_chat_template(
                    covered.of(turns),
                    tools=covered.of(offered),
                    add_generation_prompt=True,
                    tokenize=False,
                )
            except Exception as error:  # a template is a program of its own
                raise ConfigurationError(
                    "the student's chat template refuses the conversation: "
                    f"{type(error).__name__}: {error}",
                    hint="change the order and the roles of messages as it says (such as user "
                    "and assistant in turns, no system message)",
                ) from error
            return covered.encode(written)[0], self._ids(prefill)
        text = _plain_text(_tools_as_text(conversation))
        if prefill and text[-1:].strip():
            # After "A:" comes a blank, after a question a new line.
            if not text.endswith(":"):
                prefill = prefill if prefill.startswith("\n") else f"\n{prefill}"
            elif prefill[0].strip():
                prefill = f" {prefill}"
        return self._control_tokens.surround(self._as_text(text)[0]), self._ids(prefill)

    def build_truncated(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any]] | None,
        limit: int,
    ) -> tuple[list[int], list[int]]:
        """Tokenise a conversation without its oldest turns, so that it fits.

        System messages and the last turn stay; if they alone are too long, the last turn's text
        loses its beginning.

        Args:
            messages: As for `build`.
            tools: As for `build`.
            limit: Most ids of prompt and beginning together.

        Returns:
            As for `build`; still too long if system messages and beginning alone are.
        """
        return self.build(
            truncate(messages, lambda kept: sum(map(len, self.build(kept, tools))) <= limit), tools
        )

    def writes_frame(self, messages: Sequence[BaseMessage]) -> bool:
        """Whether a conversation is written as questions and answers, for want of a template.

        Args:
            messages: The conversation.
        """
        begun = begun_text(messages) is not None
        turns = [m for m in messages[: -1 if begun else None] if not isinstance(m, SystemMessage)]
        return not self.tokenizer.chat_template and len(turns) > 1

    def _as_text(self, text: str) -> tuple[list[int], list[str]]:
        covered = CoveredText(self._control_tokens, text)
        return covered.encode(covered.of(text))

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids, pieces = self._as_text(text)
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise ValueError(
                f"the beginning of the answer (messages[-1], or the guidance) holds "
                f"{pieces[ids.index(unknown)][:20]!r}, which the student's tokenizer cannot spell; "
                "leave it out, or use a student whose tokenizer can write any text (byte-level "
                "ones can)"
            )
        return ids


def _with_text(message: BaseMessage, text: str) -> BaseMessage:
    return message.model_copy(update={"content": text})


def _as_dicts(conversation: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Make the dicts that chat templates read: texts, and tool arguments as objects."""
    plain = [_with_text(message, str(message.text)) for message in conversation]
    turns: Any = convert_to_openai_messages(plain)
    for turn in turns:
        for call in turn.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return list(turns)


def _tools_as_text(conversation: Sequence[BaseMessage]) -> list[BaseMessage]:
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
