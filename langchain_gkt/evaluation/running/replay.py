"""A teacher that repeats what it was recorded to say, up to any number of its own tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from langchain_gkt.evaluation.running.records import Reply

Tokenizer = Callable[[str], list[str]]
"""Cuts a text into the teacher's tokens; joined they are the text."""

METHODS = {
    "logprobs": "exact: the provider told the tokens it wrote (logprobs)",
    "tokenizer": "the teacher's tokenizer, over the whole text: exact where the model writes as "
    "its tokenizer cuts",
    "approximate": "approximate: in proportion to the characters, because neither the provider "
    "nor a tokenizer told the teacher's tokens",
    "guessed": "guessed at four characters a token, because the teacher told neither its tokens "
    "nor how many there were; give teacher_tokenizer=",
}
"""How a recorded answer can be cut, in words."""


class Script:
    """A recorded reply that can be cut after any number of tokens."""

    def __init__(self, reply: Reply, tokenizer: Tokenizer | None = None) -> None:
        """Find the tokens' ends.

        Args:
            reply: The reply.
            tokenizer: The teacher's, where the reply does not hold its tokens.
        """
        self.reply = reply
        text = reply.text.encode()
        usage: Any = reply.usage or {}
        self.reasoning = (usage.get("output_token_details") or {}).get("reasoning") or 0
        # Bytes that are not the text's, such as behind a removed blank, say nothing about it.
        pieces = [bytes.fromhex(piece) for piece in reply.pieces or ()]
        self.method = "logprobs"
        if b"".join(pieces) != text or not pieces:
            pieces = [piece.encode() for piece in tokenizer(reply.text)] if tokenizer else []
            self.method = "tokenizer"
        if b"".join(pieces) != text or not pieces:
            self.method = "approximate" if usage.get("output_tokens") else "guessed"
            pieces = []
        self._pieces = pieces
        reported = usage.get("output_tokens") or 0
        # Providers differ in whether they count the token that ends the answer.
        # Where nobody tells, a token is taken for four characters, as the chain does.
        told = len(pieces) or count_tokens_approximately([reply.text], extra_tokens_per_message=0)
        self.tokens = reported or told + 1

    def cut(self, limit: int) -> tuple[str, int, bool]:
        """Cut as the provider would have done with a limit.

        Args:
            limit: Most completion tokens.

        Returns:
            The text, its completion tokens, and whether it is the whole reply.
        """
        if limit >= self.tokens:
            return self.reply.text, self.tokens, True
        visible = max(0, limit - self.reasoning)
        if self._pieces:
            text = b"".join(self._pieces[:visible]).decode(errors="ignore")
        else:
            most = max(1, self.tokens - self.reasoning)
            text = self.reply.text[: len(self.reply.text) * visible // most]
        return text, limit, False


class RecordedTeacher(BaseChatModel):
    """A chat model that gives a recorded reply; one for each question."""

    script: Any = Field(repr=False)
    """The `Script` of the reply."""
    max_tokens: int | None = None
    """Most completion tokens, as the chain sets it."""

    @property
    def _llm_type(self) -> str:
        return "gkt-recorded"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply: Reply = self.script.reply
        limit = self.script.tokens if self.max_tokens is None else self.max_tokens
        text, tokens, whole = self.script.cut(limit)
        usage: Any = dict(reply.usage or {"input_tokens": reply.part.prompt_tokens})
        if not whole or not reply.usage:
            usage |= {"output_tokens": tokens, "total_tokens": usage["input_tokens"] + tokens}
            if self.script.reasoning:
                hidden = min(tokens, self.script.reasoning)
                usage["output_token_details"] = {"reasoning": hidden}
        message = AIMessage(
            text,
            usage_metadata=usage,
            response_metadata={"finish_reason": reply.finish_reason if whole else "length"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)


def logprob_pieces(message: AIMessage) -> list[str] | None:
    """Read the tokens of a reply where its provider tells them, as OpenAI's ``logprobs`` does.

    Args:
        message: The reply.

    Returns:
        Each token's bytes in hexadecimal, or None.
    """
    told = message.response_metadata.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not content:
        return None
    return [
        (bytes(one["bytes"]) if one.get("bytes") is not None else one["token"].encode()).hex()
        for one in content
    ]


def pieces_by(tokenizer: Any) -> Tokenizer:
    """Make a function that cuts texts with a Hugging Face tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.

    Returns:
        The function. Tokens inside one character come out as an empty piece and the character;
        a text that the tokenizer does not give back unchanged as no pieces at all.
    """

    def cut(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # Not the tokens' offsets: many tokenizers leave a word's leading blank out of them.
        grown = [""]
        for size in range(1, len(ids) + 1):
            seen = tokenizer.decode(ids[:size], clean_up_tokenization_spaces=False)
            grown.append(seen.rstrip("\ufffd"))  # half a character
        if grown[-1] != text or not all(map(text.startswith, grown)):
            return []
        return [after[len(before) :] for before, after in itertools.pairwise(grown)]

    return cut
