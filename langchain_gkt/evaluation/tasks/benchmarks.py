"""The published tasks: their rows, when an answer is right, and the paper's numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from langchain_gkt.evaluation.scoring.reference import reference_number, reference_option
from langchain_gkt.evaluation.tasks.readers import PublishedRow
from langchain_gkt.evaluation.tasks.task import Metric, Row
from langchain_gkt.students.voting import AnswerForm
from langchain_gkt.texts.numbers import extract_number, states_number
from langchain_gkt.texts.options import extract_option, states_option

_LETTERED = re.compile(r"\s*\(?([A-Z])\s*[).:]\s*(?:\1\)\s*)?(.*\S)", re.DOTALL)  # some: A)A)59


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is known about a published task.

    Attributes:
        hub: Dataset id, configuration and split on the hub.
        read: Turns a publisher's row into a task's.
        metrics: By name. ``answer`` is the main one.
        leaks: Whether guidance contains a row's answer.
        shots: Worked examples in the prompt, as in the paper.
        guidance_tokens: How much the teacher writes, as in the paper.
        max_tokens: That, plus the maximum that the paper's student writes.
        zero_shot: The instruction if no examples show the form of an answer.
        answer_of: When two answers are equal.
    """

    hub: tuple[str, str | None, str]
    read: Callable[[PublishedRow], dict[str, Any]]
    metrics: Mapping[str, Metric]
    leaks: Callable[[str, Row], bool]
    shots: int
    guidance_tokens: int
    max_tokens: int
    zero_shot: str
    answer_of: AnswerForm


def gsm8k_row(published: PublishedRow) -> dict[str, Any]:
    """Read ``question``, and ``answer`` ending in ``#### N``, of GSM8K.

    Returns:
        The row of a task: question, gold number as text, and solution.
    """
    solution, mark, gold = published.text("answer").rpartition("####")
    gold = gold.strip().replace(",", "")
    try:
        stated = bool(mark) and Decimal(gold).is_finite()
    except InvalidOperation:
        stated = False
    if not stated:
        raise published.error("answer", "must end in '#### ' and a number")
    return {"question": published.text("question"), "answer": gold, "solution": solution.strip()}


def csqa_row(published: PublishedRow) -> dict[str, Any]:
    """Read a row of CommonsenseQA.

    It has the publisher's form (``question.stem``, ``question.choices``, ``answerKey``) or the
    hub's (``question``, ``choices.label``, ``choices.text``).

    Returns:
        The row of a task. ``choices`` maps each letter to its text.
    """
    nested = published.need("question")
    if isinstance(nested, Mapping):
        asked = PublishedRow(published.where, nested, "question.")
        stem = asked.text("stem")
    else:
        asked, stem = published, published.text("question")
    listed = asked.need("choices")
    if isinstance(listed, Mapping):
        form = PublishedRow(asked.where, listed, f"{asked.inside}choices.")
        labels, texts = form.need("label"), form.need("text")
        if not isinstance(labels, Sequence) or not isinstance(texts, Sequence):
            raise asked.error("choices", "must hold two lists, label and text")
        if len(labels) != len(texts):
            raise asked.error("choices", f"has {len(labels)} labels for {len(texts)} texts")
        listed = [{"label": a, "text": b} for a, b in zip(labels, texts, strict=True)]
    if not isinstance(listed, Sequence) or not all(isinstance(part, Mapping) for part in listed):
        raise asked.error("choices", "must be a list of objects with label and text")
    parts = [PublishedRow(asked.where, part, f"{asked.inside}choices.") for part in listed]
    pairs = [(part.text("label").upper(), part.text("text")) for part in parts]
    if not published.fields.get("answerKey"):
        raise published.error(
            "answerKey",
            "is missing or empty: the publisher hides the answers of its test split. "
            "Use the validation split (the publisher's dev file).",
        )
    return _choice_row(published, stem, pairs, asked, "choices", "answerKey")


def aqua_row(published: PublishedRow) -> dict[str, Any]:
    """Read ``question``, ``options`` such as ``A)21``, ``correct`` and ``rationale`` of AQuA-RAT.

    Returns:
        The row of a task. ``choices`` maps each letter to its text.
    """
    options = published.need("options")
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise published.error("options", f"must be a list, not {type(options).__name__}")
    pairs = []
    for i, option in enumerate(options):
        match = _LETTERED.fullmatch(option.rstrip()) if isinstance(option, str) else None
        if match is None:
            raise published.error(f"options[{i}]", f"must look like 'A)21', not {option!r}")
        pairs.append((match[1], match[2]))
    row = _choice_row(published, published.text("question"), pairs, published, "options", "correct")
    return row | {"solution": published.fields.get("rationale") or ""}


def _choice_row(
    published: PublishedRow,
    stem: str,
    pairs: list[tuple[str, str]],
    asked: PublishedRow,
    field: str,
    key: str,
) -> dict[str, Any]:
    choices = dict(pairs)
    if len(choices) < 2 or len(choices) < len(pairs) or not choices.keys() <= {*"ABCDE"}:
        raise asked.error(field, "must have two or more different letters from A to E")
    gold = published.text(key).upper()
    if gold not in choices:
        raise published.error(key, f"must be one of {', '.join(choices)}, not {gold!r}")
    shown = ", ".join(f"({letter}) {text}" for letter, text in pairs)
    return {"question": f"{stem} Answer choices: {shown}", "answer": gold, "choices": choices}


def _metric(extract: Callable[[str], Any], read: Callable[[Any], Any]) -> Metric:
    def metric(text: str, row: Row) -> bool | None:
        answer = extract(text)
        return None if answer is None else bool(answer == read(row["answer"]))

    return metric


def _paper_number(text: str, row: Row) -> bool:
    return reference_number(text, row["answer"], question=row["question"])


def _paper_option(text: str, row: Row, options: str) -> bool:
    return reference_option(text, row["answer"], options=options)


def _leaks_number(guidance: str, row: Row) -> bool:
    return states_number(guidance, row["answer"], row["question"])


def _leaks_option(guidance: str, row: Row) -> bool:
    return states_option(guidance, row["answer"], row["choices"])


_RULES: Any = ("answer", "strict", "flexible")
_NUMBERS = {rule: _metric(partial(extract_number, how=rule), Decimal) for rule in _RULES}
_OPTIONS = {rule: _metric(partial(extract_option, how=rule), str) for rule in _RULES}
# Small models copy the N of "The answer is N."
_END_IN_NUMBER = (
    "Reason in a few short sentences. The last one gives the result, for example: The answer is 27."
)
_END_IN_LETTER = (
    "Reason in a few short sentences, then end with 'The answer is X.', where X is the letter "
    "of the right choice."
)

BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark(
        hub=("openai/gsm8k", "main", "test"),
        read=gsm8k_row,
        metrics={**_NUMBERS, "reference": _paper_number},
        leaks=_leaks_number,
        shots=8,
        guidance_tokens=40,
        max_tokens=340,
        zero_shot=_END_IN_NUMBER,
        answer_of="number",
    ),
    "csqa": Benchmark(
        hub=("tau/commonsense_qa", None, "validation"),
        read=csqa_row,
        # Its code never draws E here.
        metrics={**_OPTIONS, "reference": partial(_paper_option, options="ABCD")},
        leaks=_leaks_option,
        shots=7,
        guidance_tokens=30,
        max_tokens=130,
        zero_shot=_END_IN_LETTER,
        answer_of="option",
    ),
    "aqua": Benchmark(
        hub=("deepmind/aqua_rat", "raw", "test"),
        read=aqua_row,
        metrics={**_OPTIONS, "reference": partial(_paper_option, options="ABCDE")},
        leaks=_leaks_option,
        shots=4,
        guidance_tokens=20,
        max_tokens=120,
        zero_shot=_END_IN_LETTER,
        answer_of="option",
    ),
}
