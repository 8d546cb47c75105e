"""Votes: which of several answers to one question is shown, and how many agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessage
from langchain_core.utils.json import parse_json_markdown

from langchain_gkt.errors import nearest
from langchain_gkt.texts.numbers import extract_number
from langchain_gkt.texts.options import extract_option

AnswerForm = Literal["number", "option", "json", "text"]
"""When two answers are equal: by their number, option letter, JSON object or text."""

AnswerOf = AnswerForm | Callable[[str], Hashable]
"""A form, or a function from a text to the value to compare. None for text it cannot read."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The result of a vote on several answers to one question."""

    winner: AIMessage | None  # the first that most agree on. None if none can be read
    agreement: float  # the share of all answers that agree with it, from 0 to 1


def vote(answers: Sequence[AIMessage], answer_of: AnswerOf, *, begun: str = "") -> Vote:
    """Count what answers say. Of two that are equally frequent the earlier one wins.

    Args:
        answers: The answers. An unreadable or truncated one agrees with none.
        answer_of: When two answers are equal.
        begun: The text that all of them continue.

    Raises:
        ValueError: If ``answer_of`` is unknown, or a function that fails on an answer.
    """
    keys = [
        None
        if answer.response_metadata.get("finish_reason") == "length"
        else _read(f"{begun}{answer.text}", answer_of)
        for answer in answers
    ]
    first, agreement = most_frequent(keys)
    return Vote(winner=None if first is None else answers[first], agreement=agreement)


def most_frequent(keys: Sequence[Hashable]) -> tuple[int | None, float]:
    """Return where the most frequent key comes first, and its share. Keys that are None lose."""
    counts = Counter(key for key in keys if key is not None)
    if not counts:
        return None, 0.0
    key, count = counts.most_common(1)[0]
    return keys.index(key), count / len(keys)


def check_answer_of(answer_of: Any) -> Any:
    """Return the value of a field ``answer_of``.

    Raises:
        ValueError: If it is no known form, or a function that fails on an empty text.
    """
    forms = get_args(AnswerForm)
    if callable(answer_of):
        _read("", answer_of)
    elif answer_of not in forms:
        raise ValueError(
            f"answer_of={answer_of!r} is unknown; {nearest(str(answer_of), forms)} It may be one "
            f"of {', '.join(forms)}, or a function from a text to what is compared"
        )
    return answer_of


def _read(text: str, answer_of: AnswerOf) -> Hashable:
    if not callable(answer_of):
        return _FORMS[answer_of](text)
    try:
        key = answer_of(text)
        hash(key)
    except Exception as error:
        raise ValueError(
            f"answer_of failed on the text {text[:80]!r} ({type(error).__name__}: {error}); have "
            "it return None for a text that it cannot read, and something hashable otherwise"
        ) from error
    return key


def _object(text: str) -> str | None:
    """Return the JSON value in a text, its keys sorted."""
    try:
        return json.dumps(parse_json_markdown(text, parser=json.loads), sort_keys=True)
    except (ValueError, RecursionError):  # small models nest brackets without end
        return None


def _normalized(text: str) -> str | None:
    return " ".join(text.casefold().split()).rstrip(".!?") or None


_FORMS: dict[str, Callable[[str], Hashable]] = {
    "number": extract_number,
    "option": extract_option,
    "json": _object,
    "text": _normalized,
}
