"""What models are compared on: rows, the prompt of each, and when an answer is right."""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from inspect import iscoroutinefunction
from numbers import Integral
from os import PathLike
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_gkt.evaluation.tasks import benchmarks, loading, word_problems

Row: TypeAlias = Mapping[str, Any]
"""One question: at least ``question``, a text or a list of LangChain messages."""

Metric: TypeAlias = Callable[[str, Row], "bool | None"]
"""Whether an answer's text is right for a row; None: no answer could be read, so wrong."""

Style = Literal["chat", "text"]


@dataclass(frozen=True)
class Example:
    """One worked example of a few-shot prompt.

    Attributes:
        question: As a row would put it.
        answer: As a model should write it.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        """Refuse what would leave a gap in a prompt.

        Raises:
            TypeError: If a part is no text.
            ValueError: If a part is blank.
        """
        for name in ("question", "answer"):
            _check_text(getattr(self, name), f"Example.{name}")


@dataclass(frozen=True)
class Task:
    """Questions, the prompt of each, and what makes an answer right.

    Attributes:
        name: What reports call it.
        rows: The questions, with whatever the metrics need to judge an answer.
        metric: Whether an answer is right; None where no answer could be read.
        more_metrics: Other metrics by name, shown beside the main one.
        leaks: Whether guidance alone already contains a row's answer; None: where ``metric``
            holds for the guidance.
        examples: Few-shot turns in front of every question.
        style: ``chat`` for messages in turns; ``text`` for one message of ``Q:`` and ``A:``
            lines, which base models continue.
        instruction: A system message (``chat``) or the first paragraph (``text``).
        guidance_tokens: How much a teacher should write; advice for whoever builds a chain.
        max_tokens: Most tokens of a whole answer, guidance included; None for no limit.
        stop: Strings that end an answer.
        source: Where the rows come from, for the manifests of runs.
    """

    name: str
    rows: Sequence[Row] = field(repr=False)
    metric: Metric
    _: KW_ONLY
    more_metrics: Mapping[str, Metric] = field(default_factory=dict)
    leaks: Callable[[str, Row], bool] | None = None
    examples: Sequence[Example] = field(default=(), repr=False)
    style: Style = "chat"
    instruction: str | None = None
    guidance_tokens: int = 40
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what could only fail later, in the middle of a paid run.

        Raises:
            TypeError: If a field or a row has the wrong type.
            ValueError: If a field or a row has a value that means nothing.
        """
        _check_text(self.name, "Task.name")
        _check_style(self.style, "Task.style")
        self._hold("rows", "mappings such as {'question': '2 + 2?', 'answer': '4'}")
        self._hold("examples", "Example(question, answer)")
        self._hold("stop", "texts")
        if not self.rows:
            raise ValueError("Task.rows is empty; give at least one row")
        for i, row in enumerate(self.rows):
            self._check_row(row, f"Task.rows[{i}]")
        for i, example in enumerate(self.examples):
            if not isinstance(example, Example):
                kind = type(example).__name__
                raise TypeError(f"Task.examples[{i}] must be Example(question, answer), not {kind}")
        for i, end in enumerate(self.stop):
            if not isinstance(end, str) or not end:
                raise TypeError(f"Task.stop[{i}] must be a text that is not empty, not {end!r}")
        if not isinstance(self.more_metrics, Mapping):
            raise TypeError("Task.more_metrics must map a name to each metric")
        object.__setattr__(self, "more_metrics", dict(self.more_metrics))
        _check_function(self.metric, "Task.metric")
        for name, metric in self.more_metrics.items():
            _check_text(name, "a name in Task.more_metrics")
            _check_function(metric, f"Task.more_metrics[{name!r}]")
        if "answer" in self.more_metrics:
            raise ValueError("Task.more_metrics: 'answer' is the name of the main metric")
        if self.leaks is not None:
            _check_function(self.leaks, "Task.leaks")
        if self.instruction is not None:
            _check_text(self.instruction, "Task.instruction")
        _check_count(self.guidance_tokens, "Task.guidance_tokens", 0)
        if self.max_tokens is not None:
            _check_count(self.max_tokens, "Task.max_tokens", 1)

    def prompt(self, row: Row) -> list[BaseMessage]:
        """Return what a model is asked for a row.

        Args:
            row: One of ``rows``, or another of the same form.

        Returns:
            ``chat``: instruction, examples in turns, question. ``text``: one message.

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
            blocks = [f"Q: {one.question}\nA: {one.answer}" for one in self.examples]
            first = [] if self.instruction is None else [self.instruction]
            return [HumanMessage("\n\n".join([*first, *blocks, f"Q: {question}\nA:"]))]
        turns: list[BaseMessage] = []
        if self.instruction is not None:
            turns.append(SystemMessage(self.instruction))
        for one in self.examples:
            turns += [HumanMessage(one.question), AIMessage(one.answer)]
        return [*turns, *([HumanMessage(question)] if isinstance(question, str) else question)]

    def judge(self, text: str, row: Row) -> dict[str, bool | None]:
        """Judge an answer by every metric.

        Args:
            text: The whole answer.
            row: The row it answers.

        Returns:
            The main metric's verdict as ``answer``, then the others' by name.

        Raises:
            TypeError: If a metric returns something else than a bool or None.
        """
        return {
            name: _verdict(metric(text, row), f"metric {name!r}")
            for name, metric in {"answer": self.metric, **self.more_metrics}.items()
        }

    def leaked(self, guidance: str, row: Row) -> bool:
        """Say whether guidance alone already contains a row's answer.

        Args:
            guidance: What the teacher wrote.
            row: The row it belongs to.

        Returns:
            Whether it does; never where there is no guidance.

        Raises:
            TypeError: If ``leaks`` (or ``metric`` in its place) returns no verdict.
        """
        if not guidance.strip():
            return False
        if self.leaks is None:
            return _verdict(self.metric(guidance, row), "metric 'answer'") is True
        return _verdict(self.leaks(guidance, row), "leaks") is True

    def row_key(self, i: int) -> str:
        """Return a name of a row that is the same in every run.

        Args:
            i: The row's number, from 0.

        Returns:
            The number and a hash of the row and its prompt.

        Raises:
            IndexError: If there is no such row.
        """
        i = range(len(self.rows))[i]  # -1 is the last one under any name
        return f"{i:04d}-{self._hash(self.rows[i])[:12]}"

    def _hash(self, row: Row) -> str:
        plain = json.dumps([_plain(self.prompt(row)), _plain(row)], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()

    def _hold(self, name: str, what: str) -> None:
        """Keep a list as a tuple, so that nobody adds to it later."""
        value = getattr(self, name)
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"Task.{name} must be a list of {what}, not {type(value).__name__}")
        object.__setattr__(self, name, tuple(value))

    def _check_row(self, row: Any, where: str) -> None:
        if not isinstance(row, Mapping):
            raise TypeError(f"{where} must be a mapping, not {type(row).__name__}")
        if "question" not in row:
            raise ValueError(f"{where} has no 'question'; it has: {', '.join(map(str, row))}")
        question = row["question"]
        where += "['question']"
        if isinstance(question, str):
            _check_text(question, where)
        elif self.style == "text":
            raise ValueError(f"{where} must be a text; for messages give style='chat'")
        elif not isinstance(question, list | tuple) or not all(
            isinstance(message, BaseMessage) for message in question
        ):
            raise TypeError(f"{where} must be a text or a list of LangChain messages")
        elif not question:
            raise ValueError(f"{where} is empty")


def load_task(
    name: str,
    *,
    data: str | PathLike[str] | None = None,
    rows: int | None = None,
    seed: int | None = None,
    shots: int | None = None,
    style: Style = "chat",
    exemplars: str | PathLike[str] | None = None,
    reference: bool = False,
) -> Task:
    """Load a known task.

    Args:
        name: ``gsm8k``, ``csqa``, ``aqua`` or ``word_problems``.
        data: A file in the publisher's format: JSON lines, or a JSON list. None: the
            ``datasets`` package downloads the usual test rows.
        rows: Most rows to take; None for all of them (of ``word_problems``: 500).
        seed: Take a random sample, always the same for the same seed, in the order of the
            file. None: the first rows. Of ``word_problems`` it is the seed of the stream.
        shots: How many worked examples to show. None: 8 (``gsm8k``), 7 (``csqa``) or 4
            (``aqua``), as in the paper. With 0, an instruction names the form of the answer.
        style: ``chat`` or ``text``; see `Task`.
        exemplars: A file of worked examples to show instead of the package's own: see
            `langchain_gkt.evaluation.tasks.loading.read_exemplars`.
        reference: Whether to judge as the paper's code does too, under ``reference``. Of
            options it finds only "The answer is B", the form of the package's own examples.

    Returns:
        The task.

    Raises:
        FileNotFoundError: If a file does not exist.
        ImportError: If ``data`` is None and the ``datasets`` package is missing.
        OSError: If ``data`` is None and the hub cannot deliver.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument or a row has a value that means nothing.
    """
    known = [*benchmarks.BENCHMARKS, "word_problems"]
    wanted = str(name).strip().lower().replace("-", "_")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no task {name!r} among {', '.join(known)}{hint}")
    _check_style(style, "style")
    if rows is not None:
        _check_count(rows, "rows", 1)
    if shots is not None:
        _check_count(shots, "shots", 0)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed must be an int or None, not {type(seed).__name__}")
    if wanted == "word_problems":
        for given, value in (("data", data), ("exemplars", exemplars), ("shots", shots or None)):
            if value is not None:
                raise ValueError(
                    f"word_problems makes its rows and shows no examples: drop {given}"
                )
        return _word_problems(rows or 500, 20271 if seed is None else seed, style, reference)
    known_task = benchmarks.BENCHMARKS[wanted]
    pairs = (
        loading.own_exemplars(wanted) if exemplars is None else loading.read_exemplars(exemplars)
    )
    shots = known_task.shots if shots is None else shots
    if shots > len(pairs):
        source = "the package brings" if exemplars is None else "the file of exemplars holds"
        raise ValueError(
            f"shots={shots} is too many: {source} {len(pairs)}; give shots={len(pairs)}"
        )
    records = loading.hub_records(*known_task.hub) if data is None else loading.read_records(data)
    found = [known_task.read(record) for record in records]
    if rows is not None and rows < len(found):
        every = range(len(found))
        chosen = every[:rows] if seed is None else sorted(random.Random(seed).sample(every, rows))
        found = [found[i] for i in chosen]
    others = ("strict", "flexible", "reference") if reference else ("strict", "flexible")
    return Task(
        wanted,
        found,
        known_task.metrics["answer"],
        more_metrics={other: known_task.metrics[other] for other in others},
        leaks=known_task.leaks,
        examples=[Example(*pair) for pair in pairs[:shots]],
        style=style,
        instruction=None if shots else known_task.zero_shot,
        guidance_tokens=known_task.guidance_tokens,
        max_tokens=known_task.max_tokens,
        stop=_STOP[style],
        source={
            "data": "hub" if data is None else str(data),
            "rows": rows,
            "seed": seed,
            "exemplars": None if exemplars is None else str(exemplars),
        },
    )


_STOP: dict[str, tuple[str, ...]] = {"chat": (), "text": ("\nQ:",)}


def _word_problems(count: int, seed: int, style: Style, reference: bool) -> Task:
    made = word_problems.sample(seed, count)
    return Task(
        "word_problems",
        [{"question": p.question, "answer": p.answer, "solution": p.solution} for p in made],
        benchmarks.number_metric("strict"),
        more_metrics={"reference": benchmarks.paper_number} if reference else {},
        leaks=benchmarks.leaks_number,
        style=style,
        guidance_tokens=18,
        max_tokens=120,
        stop=_STOP[style],
        source={"rows": count, "seed": seed},
    )


def _check_text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{where} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{where} must not be blank")


def _check_style(value: object, where: str) -> None:
    if value not in ("chat", "text"):
        raise ValueError(f"{where} must be 'chat' or 'text', not {value!r}")


def _check_count(value: object, where: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{where} must be {least} or more, not {value}")


def _check_function(value: object, where: str) -> None:
    if not callable(value):
        raise TypeError(f"{where} must be a function of text and row, not {type(value).__name__}")
    if iscoroutinefunction(value):
        raise TypeError(f"{where} must be a plain function, not an async one")


def _verdict(value: Any, what: str) -> bool | None:
    """Return a metric's result as bool or None."""
    if value is None or isinstance(value, bool):
        return value
    # The truth values of numpy are no bools; 0 and 1 are what sums and comparisons leave.
    is_numpy = getattr(getattr(value, "dtype", None), "kind", "") == "b" and value.ndim == 0
    if is_numpy or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{what} must return True, False or None, not {value!r}")


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, without what differs from run to run."""
    if isinstance(value, BaseMessage):  # its id and metadata are not what is asked
        names = ("type", "content", "name", "tool_calls", "tool_call_id")
        return {name: _plain(getattr(value, name, None)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, str | int | float) else str(value)
