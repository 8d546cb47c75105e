"""Tasks for comparing models: rows, the prompt of each, and when an answer is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, field
from inspect import iscoroutinefunction
from numbers import Integral
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SkipValidation
from pydantic.dataclasses import dataclass

from langchain_gkt.evaluation.validation import plain_errors, wrong_type
from langchain_gkt.prompts.exemplars import mark_exemplars
from langchain_gkt.students.voting import check_answer_of

T = TypeVar("T")

Row: TypeAlias = Mapping[str, Any]
"""One question: at least ``question``, a text or a list of LangChain messages."""

Metric: TypeAlias = Callable[[str, Row], "bool | None"]
"""Whether an answer's text is right for a row. None if no answer could be read, so wrong."""

Style = Literal["chat", "text"]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _not_async(function: T) -> T:
    if iscoroutinefunction(function):
        raise wrong_type("must be a plain function, not an async one")
    return function


def _kept(what: str) -> BeforeValidator:
    """Keep a list as a tuple, so that nobody adds to it later."""

    def kept(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise wrong_type(f"must be a list of {what}, not {type(value).__name__}")
        return tuple(value)

    return BeforeValidator(kept)


def _copied(value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise wrong_type("must map a name to each metric")
    return dict(value)


def _must_be(kind: type, what: str) -> BeforeValidator:
    def checked(value: Any) -> Any:
        if not isinstance(value, kind):
            raise wrong_type(f"must be {what}, not {type(value).__name__}")
        return value

    return BeforeValidator(checked)


def _known_form(value: Any) -> Any:
    return None if value is None else check_answer_of(value)


def _not_empty(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise wrong_type(f"must be a text that is not empty, not {value!r}")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
Natural = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
_Metric = Annotated[Metric, AfterValidator(_not_async)]
_Row = Annotated[SkipValidation[Row], _must_be(Mapping, "a mapping")]
_ROWS = "mappings such as {'question': '2 + 2?', 'answer': '4'}"
_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)


@plain_errors
@dataclass(frozen=True, config=_STRICT)
class Example:
    """One worked example of a few-shot prompt.

    Attributes:
        question: As a row would put it.
        answer: As a model should write it.

    Raises:
        TypeError: If one is not a text.
        ValueError: If one is only whitespace.
    """

    question: Text
    answer: Text


_Example = Annotated[SkipValidation[Example], _must_be(Example, "Example(question, answer)")]


@plain_errors
@dataclass(frozen=True, config=_STRICT)
class Task:
    """Questions, the prompt of each, and when an answer is right.

    Faults that could show only later, in the middle of a paid run, are refused at once.

    Attributes:
        name: Its name in reports.
        rows: The questions, with all that the metrics need to judge an answer.
        metric: Whether an answer is right. None if no answer could be read.
        more_metrics: Other metrics by name, shown beside the main one.
        leaks: Whether guidance alone already contains a row's answer. None to ask ``metric``.
        examples: Few-shot turns in front of every question.
        style: ``chat`` for messages in turns. ``text`` for one message of ``Q:`` and ``A:``
            lines, which base models continue.
        instruction: A system message (``chat``) or the first paragraph (``text``).
        guidance_tokens: How much a teacher should write. A hint for the builder of a chain.
        max_tokens: Maximum tokens of a whole answer, guidance included. None for no limit.
        stop: Strings that end an answer.
        source: Where the rows come from, for the manifests of runs.
        answer_of: When two answers are equal, for a sweep whose student answers several times. None
            for the chain's ``answer_of``.

    Raises:
        TypeError: If a field or a row has the wrong type.
        ValueError: If a field or a row has a meaningless value.
    """

    name: Text
    rows: Annotated[Sequence[_Row], _kept(_ROWS)] = field(repr=False)
    metric: _Metric
    _: KW_ONLY
    more_metrics: Annotated[Mapping[Text, _Metric], BeforeValidator(_copied)] = field(
        default_factory=dict
    )
    leaks: Annotated[Callable[[str, Row], bool], AfterValidator(_not_async)] | None = None
    examples: Annotated[Sequence[_Example], _kept("Example(question, answer)")] = field(
        default=(), repr=False
    )
    style: Style = "chat"
    instruction: Text | None = None
    guidance_tokens: Natural = 40
    max_tokens: Count | None = None
    stop: Annotated[Sequence[Annotated[str, BeforeValidator(_not_empty)]], _kept("texts")] = ()
    source: SkipValidation[Mapping[str, Any]] = field(default_factory=dict, repr=False)
    answer_of: Annotated[Any, BeforeValidator(_known_form)] = None

    def __post_init__(self) -> None:
        """Refuse faults that only fields together show."""
        if not self.rows:
            raise ValueError("Task.rows is empty; give at least one row")
        for i, row in enumerate(self.rows):
            self._check_question(row, f"Task.rows[{i}]")
        if "answer" in self.more_metrics:
            raise ValueError("Task.more_metrics: 'answer' is the name of the main metric")

    def prompt(self, row: Row) -> list[BaseMessage]:
        """Return the prompt for a row.

        Args:
            row: One of ``rows``, or another of the same form.

        Returns:
            ``chat``: instruction, examples in turns (marked by `prompts.mark_exemplars`), question.
                ``text``: one message.

        Raises:
            ValueError: If the question is messages and the style is ``text``.
        """
        question = row["question"]
        if self.style == "text":
            if not isinstance(question, str):
                raise ValueError(
                    "row['question'] is messages, which style='text' cannot show; give a text, "
                    "or style='chat'"
                )
            blocks = [f"Q: {shown.question}\nA: {shown.answer}" for shown in self.examples]
            first = [] if self.instruction is None else [self.instruction]
            return [HumanMessage("\n\n".join([*first, *blocks, f"Q: {question}\nA:"]))]
        turns: list[BaseMessage] = []
        if self.instruction is not None:
            turns.append(SystemMessage(self.instruction))
        for shown in self.examples:
            turns += mark_exemplars([HumanMessage(shown.question), AIMessage(shown.answer)])
        return [*turns, *([HumanMessage(question)] if isinstance(question, str) else question)]

    def judge(self, text: str, row: Row) -> dict[str, bool | None]:
        """Judge an answer by every metric.

        Returns:
            The main metric's verdict as ``answer``, then the others' by name.

        Raises:
            TypeError: If a metric returns something other than a bool or None.
        """
        return {
            name: _verdict(metric(text, row), f"metric {name!r}")
            for name, metric in {"answer": self.metric, **self.more_metrics}.items()
        }

    def leaked(self, guidance: str, row: Row) -> bool:
        """Whether guidance alone already contains a row's answer. False if there is none.

        Raises:
            TypeError: If ``leaks`` (or ``metric`` in its place) returns no verdict.
        """
        if not guidance.strip():
            return False
        if self.leaks is None:
            return _verdict(self.metric(guidance, row), "metric 'answer'") is True
        return _verdict(self.leaks(guidance, row), "leaks") is True

    def row_key(self, i: int) -> str:
        """Return a row name that is the same in every run.

        Returns:
            The number and a hash of the row and its prompt.

        Raises:
            IndexError: If there is no such row.
        """
        i = range(len(self.rows))[i]  # so that -1 has the last row's usual name
        row = self.rows[i]
        plain = json.dumps([_plain(self.prompt(row)), _plain(row)], sort_keys=True)
        return f"{i:04d}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"

    def _check_question(self, row: Row, name: str) -> None:
        if "question" not in row:
            raise ValueError(f"{name} has no 'question'; it has: {', '.join(map(str, row))}")
        question = row["question"]
        name += "['question']"
        if isinstance(question, str):
            if not question.strip():
                raise ValueError(f"{name} must not be blank")
        elif self.style == "text":
            raise ValueError(f"{name} must be a text; for messages give style='chat'")
        elif not isinstance(question, list | tuple) or not all(
            isinstance(message, BaseMessage) for message in question
        ):
            raise TypeError(f"{name} must be a text or a list of LangChain messages")
        elif not question:
            raise ValueError(f"{name} is empty")


def _verdict(value: Any, what: str) -> bool | None:
    """Return a metric's result as bool or None."""
    if value is None or isinstance(value, bool):
        return value
    # NumPy's truth values are not bools. Sums and comparisons give 0 and 1.
    is_numpy = getattr(getattr(value, "dtype", None), "kind", "") == "b" and value.ndim == 0
    if is_numpy or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{what} must return True, False or None, not {value!r}")


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, without what differs from run to run."""
    if isinstance(value, BaseMessage):  # its id and metadata are not part of the question
        names = ("type", "content", "name", "tool_calls", "tool_call_id")
        return {name: _plain(getattr(value, name, None)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, str | int | float) else str(value)
