"""A teacher that repeats a recorded reply, up to any number of its own tokens."""

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

from langchain_gkt.evaluation.running.records import TeacherReply

TokenSplitter = Callable[[str], list[str]]
"""Splits a text into the teacher's tokens; joined they are the text."""

CUT_METHODS = {
    "logprobs": "exact: the provider told the tokens it wrote (logprobs)",
    "tokenizer": "the teacher's tokenizer, over the whole text: exact where the model writes as "
    "its tokenizer cuts",
    "approximate": "approximate: in proportion to the characters, because neither the provider "
    "nor a tokenizer told the teacher's tokens",
    "guessed": "guessed at four characters a token, because the teacher told neither its tokens "
    "nor how many there were; give teacher_tokenizer=",
}
"""How the tokens of a recorded reply were found, in words."""


class ReplayedReply:
    """A recorded reply that can be cut after any number of tokens."""

    def __init__(self, recorded: TeacherReply, splitter: TokenSplitter | None = None) -> None:
        """Find the tokens' ends.

        Args:
            recorded: The reply.
            splitter: Finds the tokens if the reply does not hold them.
        """
        self.recorded = recorded
        text = recorded.text.encode()
        usage: Any = recorded.usage or {}
        self.reasoning = (usage.get("output_token_details") or {}).get("reasoning") or 0
        # Bytes that are not the text's, such as behind a removed space, say nothing about it.
        pieces = [bytes.fromhex(piece) for piece in recorded.pieces or ()]
        self.method = "logprobs"
        if b"".join(pieces) != text or not pieces:
            pieces = [piece.encode() for piece in splitter(recorded.text)] if splitter else []
            self.method = "tokenizer"
        if b"".join(pieces) != text or not pieces:
            self.method = "approximate" if usage.get("output_tokens") else "guessed"
            pieces = []
        self._pieces = pieces
        reported = usage.get("output_tokens") or 0
        # Providers differ in whether they count the token that ends the answer.
        # If neither reports them, four characters count as one token, as in the chain.
        count = len(pieces) or count_tokens_approximately(
            [recorded.text], extra_tokens_per_message=0
        )
        self.tokens = reported or count + 1

    def cut(self, limit: int) -> tuple[str, int, bool]:
        """Cut the reply where a limit would have made the provider stop.

        Args:
            limit: Most completion tokens.

        Returns:
            The text, its completion tokens, and whether it is the whole reply.
        """
        if limit >= self.tokens:
            return self.recorded.text, self.tokens, True
        visible = max(0, limit - self.reasoning)
        if self._pieces:
            text = b"".join(self._pieces[:visible]).decode(errors="ignore")
        else:
            all_visible = max(1, self.tokens - self.reasoning)
            text = self.recorded.text[: len(self.recorded.text) * visible // all_visible]
        return text, limit, False


class RecordedTeacher(BaseChatModel):
    """A chat model that gives a recorded reply; one model for each question."""

    reply: Any = Field(repr=False)
    """The `ReplayedReply`."""
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
        recorded: TeacherReply = self.reply.recorded
        limit = self.reply.tokens if self.max_tokens is None else self.max_tokens
        text, tokens, complete = self.reply.cut(limit)
        usage: Any = dict(recorded.usage or {"input_tokens": recorded.part.prompt_tokens})
        if not complete or not recorded.usage:
            usage |= {"output_tokens": tokens, "total_tokens": usage["input_tokens"] + tokens}
            if self.reply.reasoning:
                hidden = min(tokens, self.reply.reasoning)
                usage["output_token_details"] = {"reasoning": hidden}
        message = AIMessage(
            text,
            usage_metadata=usage,
            response_metadata={"finish_reason": recorded.finish_reason if complete else "length"},
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
    """Read the tokens of a reply if its provider reports them, as OpenAI's ``logprobs`` does.

    Args:
        message: The reply.

    Returns:
        Each token's bytes in hexadecimal, or None.
    """
    logprobs = message.response_metadata.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not content:
        return None
    return [
        (bytes(token["bytes"]) if token.get("bytes") is not None else token["token"].encode()).hex()
        for token in content
    ]


def token_splitter(tokenizer: Any) -> TokenSplitter:
    """Make a function that splits texts with a Hugging Face tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.

    Returns:
        The function. Of tokens that share one character, the last one is that character and the
        others are empty. A text that the tokenizer does not restore unchanged gives no tokens.
    """

    def split(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # Not by offsets: many tokenizers leave a word's leading space out of them.
        prefixes = [""]
        for size in range(1, len(ids) + 1):
            seen = tokenizer.decode(ids[:size], clean_up_tokenization_spaces=False)
            prefixes.append(seen.rstrip("\ufffd"))  # half a character
        if prefixes[-1] != text or not all(map(text.startswith, prefixes)):
            return []
        return [after[len(before) :] for before, after in itertools.pairwise(prefixes)]

    return split
