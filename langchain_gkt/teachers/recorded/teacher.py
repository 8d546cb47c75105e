"""A chat model that replays recorded answers, truncated where its provider would have stopped."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BeforeValidator, Field

from langchain_gkt._langchain_compat import to_messages
from langchain_gkt.errors import ConfigurationError, NotSupportedError, refuse_unknown, wrap_errors
from langchain_gkt.pickling import PortableChatModel
from langchain_gkt.providers.limits import LIMIT_FIELDS
from langchain_gkt.teachers.recorded.files import Column, read_file
from langchain_gkt.teachers.recorded.recordings import (
    BEGINNING,
    BadRow,
    Recording,
    Recordings,
    asked_in,
    begins,
    first_few,
    from_message,
    refuse_rows,
)
from langchain_gkt.teachers.token_cuts import CutReply, load_tokenizer
from langchain_gkt.texts.begun_answer import begun_text
from langchain_gkt.texts.stop_strings import find_stop

_TOLERANCE = 0.02
"""Share by which reported and tokenizer counts may differ, besides one token per answer."""

_HINT = (
    "record its answer, or give the log's own wording or id; a question that a strategy makes "
    "itself, such as for a verdict, needs a live teacher"
)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


class RecordedTeacher(PortableChatModel):
    """A teacher that replays recorded answers, which were paid for earlier.

    It finds an answer by the text of the user's last message, or by that message's id:
    ``HumanMessage(text, id="row-17")``, or else by the text after the last ``Q:`` of a prompt that
    ends in ``Q: ... A:``. It cuts the answer at ``max_tokens`` of the teacher's tokens, as its
    provider would have done, and reports the usage that the provider would have billed.

    Make it with `from_file` or `from_answers`.
    """

    recordings: Recordings = Field(repr=False)
    """The recorded answers."""
    tokenizer: Annotated[str | None, BeforeValidator(_as_text)] = None
    """The teacher's tokenizer: an encoding of tiktoken, such as ``"o200k_base"``, or the folder or
    repo id of a Hugging Face tokenizer. Recorded logprobs take precedence.
    """
    model_name: str | None = None
    """The recorded model, for the price lookup."""
    provider: str | None = None
    """The id of its provider, such as ``"openai"``."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum completion tokens. None for whole answers."""
    logprobs: bool | None = None
    """Whether replies hold their tokens, if recorded, in OpenAI's form."""
    stream_usage: bool = True
    """Streams report their usage."""

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        columns: Mapping[str, Column] | None = None,
        requests: str | Path | None = None,
        **fields: Any,
    ) -> RecordedTeacher:
        """Read recorded answers from a file. Its shape is detected.

        Args:
            path: JSON lines or a JSON list of rows, runs exported from LangSmith, or results of
                an OpenAI batch, or rows as ``.csv`` or ``.tsv``.
            columns: Which column holds the ``question``, ``answer``, ``id``, ``input_tokens``,
                ``output_tokens``, ``finish_reason``, ``logprobs`` and ``model``: its name, or a
                list of the keys that lead to it. By default each has its own name.
            requests: The requests of an OpenAI batch, which hold its questions.
            **fields: ``tokenizer``, ``model_name``, ``provider`` and other fields.

        Returns:
            The teacher.

        Raises:
            ConfigurationError: If the file cannot be read or lacks a column, an answer is empty or
                truncated, or a question has two answers. It names file and line.
        """
        with wrap_errors(ConfigurationError, f"{path} cannot be read"):
            answers = read_file(Path(path), columns, Path(requests) if requests else None)
            dated = datetime.fromtimestamp(Path(path).stat().st_mtime).date().isoformat()
        return cls._of(answers, str(path), fields, dated)

    @classmethod
    def from_answers(cls, answers: Mapping[str, str | AIMessage], **fields: Any) -> RecordedTeacher:
        """Replay the answers of a mapping.

        Args:
            answers: Answers by question. If one is a message, its usage and finish reason count
                too.
            **fields: ``tokenizer``, ``model_name``, ``provider`` and other fields.

        Returns:
            The teacher.

        Raises:
            ConfigurationError: If an answer is empty or truncated.
        """
        recordings, problems = list[Recording](), list[str]()
        for question, answer in answers.items():
            place = f"answers[{begins(question)}]"
            message = AIMessage(answer) if isinstance(answer, str) else answer
            try:
                recordings.append(from_message(question, message, place))
            except BadRow as error:
                problems.append(f"{place} {error}")
        refuse_rows(problems, "give each question a whole answer")
        return cls._of(recordings, "answers", fields)

    @classmethod
    def _of(
        cls,
        answers: Sequence[Recording],
        source: str,
        fields: dict[str, Any],
        dated: str | None = None,
    ) -> RecordedTeacher:
        recordings = Recordings.of(answers, source, dated)
        for name, known in (
            ("model_name", {answer.model for answer in answers}),
            ("provider", {answer.provider for answer in answers}),
        ):
            if fields.get(name) is None and len(known) == 1:
                fields = {**fields, name: known.pop()}
        with wrap_errors(ConfigurationError, "the teacher's fields cannot be used"):
            refuse_unknown(fields, cls.model_fields, cls.__name__)
            teacher = cls(recordings=recordings, **fields)
        if doubt := teacher._doubt():
            warnings.warn(
                f"{doubt}; give the teacher's own tokenizer=, such as 'o200k_base' for OpenAI's "
                "models",
                stacklevel=3,
            )
        return teacher

    @property
    def longest(self) -> int:
        """Completion tokens of the longest recorded answer."""
        return max(self._reply(answer).tokens for answer in self.recordings.answers)

    def _reply(self, recording: Recording) -> CutReply:
        return CutReply(
            recording.answer,
            usage=recording.usage,
            pieces=recording.pieces,
            splitter=load_tokenizer(self.tokenizer).split if self.tokenizer else None,
        )

    def _doubt(self) -> str | None:
        """Return why the cuts may differ from the provider's, or None."""
        answers = self.recordings.answers
        replies = [self._reply(answer) for answer in answers]
        if vague := sum(not reply.pieces for reply in replies):
            why = "their tokens are unknown"
            if self.tokenizer:
                why = f"tokenizer={self.tokenizer!r} does not restore them"
            return (
                f"{vague} of {len(answers)} recorded answers are cut approximately, in proportion "
                f"to their characters, because {why}"
            )
        replies = [reply for reply in replies if reply.method == "tokenizer"]
        pieces = sum(len(reply.pieces) for reply in replies)
        billed = sum(reply.tokens - reply.reasoning for reply in replies)
        if abs(billed - pieces) > len(replies) + billed * _TOLERANCE:
            return (
                f"the log reports {billed} completion tokens where tokenizer={self.tokenizer!r} "
                f"finds {pieces}, so that answers are cut elsewhere than their provider would have"
            )
        return None

    def require(self, questions: Iterable[LanguageModelInput]) -> None:
        """Check that every question has a recorded answer, before anything is paid.

        Args:
            questions: Texts or conversations.

        Raises:
            ConfigurationError: If answers are missing. It names the questions.
        """
        questions = [questions] if isinstance(questions, str) else questions
        asked = [to_messages(self, question) for question in questions]
        missing = [messages for messages in asked if self.recordings.find(messages) is None]
        if missing:
            named = first_few([_named(messages) for messages in missing])
            raise ConfigurationError(
                f"{len(missing)} of {len(asked)} questions have no recorded answer in "
                f"{self.recordings.source}: {named}",
                hint=_HINT,
            )

    @property
    def _llm_type(self) -> str:
        return "gkt-recorded"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("tokenizer", "model_name", "provider", "max_tokens")
        params = {name: getattr(self, name) for name in names}
        return {**params, "recordings": self.recordings.digest}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        if self.provider:
            params["ls_provider"] = self.provider
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message, _ = self._replay(messages, stop, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message, reply = self._replay(messages, stop, kwargs)
        for text in reply.streamed(str(message.content)):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
            if run_manager:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk
        last = AIMessageChunk(
            content="",
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)

    def _replay(
        self, messages: list[BaseMessage], stop: list[str] | None, arguments: Mapping[str, Any]
    ) -> tuple[AIMessage, CutReply]:
        """Return the recorded answer up to its limit, and its source."""
        begun = begun_text(messages)
        recording = self._find(messages if begun is None else messages[:-1], arguments)
        reply = self._reply(recording)
        size = _size_of(recording, begun or "")
        prompt = recording.usage.get("input_tokens")
        if prompt is None:
            prompt = self._count_prompt(messages)
        elif size:
            prompt += reply.tokens_in(size) - reply.reasoning
        if size:
            reply = reply.behind(size)
        limits = (arguments.get(name) for name in LIMIT_FIELDS)
        limit = next((limit for limit in limits if limit is not None), self.max_tokens)
        text, tokens, complete = reply.cut(reply.tokens if limit is None else limit)
        reason = recording.finish_reason if complete else "length"
        if (end := find_stop(text, stop)) is not None:
            text, tokens, reason = text[:end], min(tokens, reply.tokens_in(end + 1)), "stop"
        usage: Any = {
            **recording.usage,
            "input_tokens": prompt,
            "output_tokens": tokens,
            "total_tokens": prompt + tokens,
        }
        if "output_token_details" in usage:
            usage["output_token_details"] = {"reasoning": min(tokens, reply.reasoning)}
        metadata: dict[str, Any] = {
            "finish_reason": reason,
            "model_name": self.model_name or recording.model,
            "recorded": {"id": recording.id, "place": recording.place, "cut": reply.method},
        }
        if self.logprobs and recording.pieces:
            metadata["logprobs"] = _logprobs(reply.pieces, text)
        return AIMessage(text, usage_metadata=usage, response_metadata=metadata), reply

    def _count_prompt(self, messages: Sequence[BaseMessage]) -> int:
        if self.tokenizer is None:
            return count_tokens_approximately(messages)
        count = load_tokenizer(self.tokenizer).count
        return max(1, sum(count(str(message.text)) for message in messages))

    def _find(self, messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> Recording:
        if (recording := self.recordings.find(messages)) is None:
            raise ConfigurationError(
                f"no answer is recorded in {self.recordings.source} to {_named(messages)}",
                hint=_HINT,
            )
        model = arguments.get("model")
        if model not in (None, self.model_name, recording.model):
            raise NotSupportedError(
                f"model={model!r} needs a live teacher: the answers of "
                f"{self.recordings.source} are those of {self.model_name or recording.model}",
                hint="leave model= out",
            )
        return recording


def _logprobs(pieces: Sequence[bytes], text: str) -> dict[str, Any]:
    """Report the tokens of a text, as a provider does for ``logprobs``."""
    content, left = list[dict[str, Any]](), len(text.encode())
    for piece in pieces:
        if left <= 0:
            break
        kept, left = piece[:left], left - len(piece)
        content.append({"token": kept.decode(errors="replace"), "bytes": list(kept)})
    return {"content": content}


def _size_of(recording: Recording, begun: str) -> int:
    """Return how many characters of a recorded answer a begun answer takes."""
    if not begun.strip():
        return 0
    for edge in ("", re.match(r"\s*", recording.answer)[0]):  # type: ignore[index]
        if recording.answer.startswith(edge + begun):
            return len(edge + begun)
    raise NotSupportedError(
        f"the begun answer {begun[:BEGINNING]!r} to {begins(recording.question)} needs a live "
        f"teacher, because the answer at {recording.place} begins otherwise: "
        f"{recording.answer[:BEGINNING]!r}",
        hint="use a strategy that asks the teacher once, or a live teacher",
    )


def _named(messages: Sequence[BaseMessage]) -> str:
    """Name a conversation by its last question."""
    asked = asked_in(messages)
    if asked is not None:
        return begins(str(asked.text))
    last = f"a message of type {messages[-1].type!r}" if messages else "an empty conversation"
    return f"{last} (a second call)"
