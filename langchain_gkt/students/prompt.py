"""Messages and the beginning of an answer -> token ids, safe against control tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import convert_to_openai_messages


class PromptBuilder:
    """Turns conversations into ids for one tokenizer.

    The conversation and the beginning of the answer are tokenised apart and joined as ids:
    chat templates that continue a last message trim it or add to it.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Prepare a second tokenizer that knows no control tokens.

        Args:
            tokenizer: A Hugging Face tokenizer.
        """
        self.tokenizer = tokenizer
        # A second object, because the switch is shared state of the first one.
        self._plain = copy.deepcopy(tokenizer)
        self._plain.split_special_tokens = True

    def build(self, messages: Sequence[BaseMessage]) -> tuple[list[int], list[int]]:
        """Tokenise a conversation.

        Args:
            messages: The conversation. A trailing AIMessage is the beginning of the answer.

        Returns:
            Ids of the prompt, and ids of the beginning of the answer (may be empty).

        Raises:
            ValueError: If there is nothing to answer, or a message holds more than text.
        """
        conversation, prefill = list(messages), ""
        if messages and isinstance(messages[-1], AIMessage):
            prefill = str(conversation.pop().text)
        for position, message in enumerate(messages):
            _refuse_media(message, position)
        if not any(str(message.text).strip() for message in conversation):
            raise ValueError("messages must hold some text to answer; the prompt is empty")
        if self.tokenizer.chat_template:
            ids = self.tokenizer.apply_chat_template(
                convert_to_openai_messages(conversation),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                sanitize_control_tokens=True,
            )["input_ids"]
            return list(ids), self._ids(prefill)
        text = _plain_text(conversation)
        if prefill and text[-1:].strip():
            # "A:" is followed by a blank; a question by a new line.
            prefill = (" " if text.endswith(":") else "\n") + prefill
        return list(self.tokenizer(text)["input_ids"]), self._ids(prefill)

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        return list(self._plain(text, add_special_tokens=False)["input_ids"])


def _plain_text(conversation: Sequence[BaseMessage]) -> str:
    """Write a conversation for a base model, as few-shot questions and answers."""
    system = [str(m.text).strip() for m in conversation if isinstance(m, SystemMessage)]
    turns = [m for m in conversation if not isinstance(m, SystemMessage)]
    if len(turns) == 1:
        # One message is a prompt the user has already written out.
        return "\n\n".join([*system, str(turns[0].text)])
    names = {HumanMessage: "Q", AIMessage: "A", ToolMessage: "Tool"}
    spoken = [f"{names.get(type(m), 'Q')}: {str(m.text).strip()}" for m in turns]
    return "\n\n".join(system) + ("\n\n" if system else "") + "\n".join(spoken) + "\nA:"


def _refuse_media(message: BaseMessage, position: int) -> None:
    if isinstance(message.content, str):
        return
    for block in message.content:
        kind = "text" if isinstance(block, str) else block.get("type")
        if kind in ("image", "image_url", "audio", "input_audio", "video", "file"):
            raise ValueError(
                f"messages[{position}] ({message.type}) holds a block of type {kind!r}; "
                "the student reads text only"
            )
