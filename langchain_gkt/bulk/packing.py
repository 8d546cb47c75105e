"""Several questions in one prompt: how to ask, read the reply, and share the bill."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, takewhile
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.utils.json import parse_partial_json

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.errors import NotSupportedError
from langchain_gkt.evaluation.running.records import ModelUsage

_REQUEST = (
    "Answer each of the {count} questions below, but write only the beginning of each answer: its "
    "first step or two, at most {words} words. Somebody else goes on from there. Reply with one "
    'JSON object that maps the number of each question to its beginning: {{"1": "...", ...}}.'
)
_NUMBERED = re.compile(
    r"^\W*(\d+)\W*[.):][*_\s]*(.+?)(?=^\W*\d+\W*[.):]|\Z)", re.MULTILINE | re.DOTALL
)
_PLACES = Decimal(1).scaleb(-18)


def check_packable(chain: GuidedKnowledgeTransferChain) -> None:
    """Refuse a chain whose teacher writes more than beginnings.

    Raises:
        NotSupportedError: If its mode or its teacher prompt asks for something else.
    """
    policy = chain.guidance
    prompt = chain.teacher_prompt or getattr(policy, "teacher_prompt", None)
    strategy = strategy_of(chain.mode)
    if not (strategy.asks_teacher and strategy.asks_student) or strategy.asks_own_questions:
        raise NotSupportedError(
            f"questions_per_call asks for beginnings, and mode={chain.mode!r} needs other answers",
            hint="use mode='guided', or questions_per_call=1",
        )
    if prompt is not None:
        raise NotSupportedError(
            "questions_per_call makes a prompt of its own, and teacher_prompt would change it",
            hint="leave one of them out",
        )


def packed_messages(prompts: Sequence[str], tokens: int) -> list[BaseMessage]:
    """Put several prompts into one, with room for guidance tokens for each.

    The common beginning, such as worked examples, is written once and first, byte for byte, so that
    a provider's cache finds it.
    """
    front = _common_front(prompts)
    request = _REQUEST.format(count=len(prompts), words=max(3, tokens * 3 // 5))
    questions = [f"Question {n}:\n{text[len(front) :]}" for n, text in enumerate(prompts, 1)]
    return [HumanMessage("\n\n".join([*([front.rstrip()] if front else []), request, *questions]))]


def _common_front(prompts: Sequence[str]) -> str:
    """Return the paragraphs with which all prompts begin."""
    pairs = zip(min(prompts), max(prompts), strict=False)
    shared = "".join(char for char, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared[: shared.rfind("\n\n") + 2] if "\n\n" in shared else ""


def read_beginnings(text: str, count: int) -> dict[int, str]:
    """Read a packed reply: a JSON object, a truncated one, or numbered lines.

    Returns:
        Beginnings by the questions' numbers, from 0. Left out is what is empty, not a text, without
        a word (such as the form's own "..."), cut before its first word, or of no question.
    """
    beginnings: dict[int, str] = {}
    for name, value in _pairs(text):
        number = int(name) - 1 if name.isdecimal() else -1
        if isinstance(value, str) and re.search(r"\w", value) and 0 <= number < count:
            beginnings.setdefault(number, value.strip())
    return beginnings


def _pairs(text: str) -> list[tuple[str, Any]]:
    start = text.find("{")
    if start >= 0:
        end = text.rfind("}") + 1
        for part in (text[start:end], text[start:]):  # whole, or cut off by the limit
            try:
                data = parse_partial_json(part) if part else None
            except json.JSONDecodeError:
                continue
            if isinstance(data, dict):
                return [(str(name), value) for name, value in data.items()]
    return [(match[1], match[2]) for match in _NUMBERED.finditer(text)]


def shared_out(part: ModelUsage, beginnings: Sequence[str]) -> list[ModelUsage]:
    """Share a packed call's usage among its questions.

    The prompt is shared evenly, the completion by the beginnings' characters. The sums are those of
    the call, to the last digit.
    """
    even, lengths = [1] * len(beginnings), [max(1, len(text)) for text in beginnings]
    prompts, completions = _whole(part.prompt_tokens, even), _whole(part.completion_tokens, lengths)
    prompt_costs, costs = _money(part.prompt_cost, even), _money(part.completion_cost, lengths)
    first = [part.calls, *[0] * (len(beginnings) - 1)]
    return [
        replace(
            part,
            calls=first[i],
            prompt_tokens=prompts[i],
            completion_tokens=completions[i],
            prompt_cost=prompt_costs[i],
            completion_cost=costs[i],
            seconds=part.seconds / len(beginnings),
            unreported=part.unreported if i == 0 else 0,
        )
        for i in range(len(beginnings))
    ]


def _whole(total: int, weights: Sequence[int]) -> list[int]:
    ends = [total * sum_ // sum(weights) for sum_ in accumulate(weights)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _money(total: str | None, weights: Sequence[int]) -> list[str | None]:
    if total is None:
        return [None] * len(weights)
    whole, every = Decimal(total), sum(weights)
    ends = [(whole * sum_ / every).quantize(_PLACES) for sum_ in accumulate(weights)]
    ends[-1] = whole
    return [str(end - start) for start, end in zip([Decimal(0), *ends], ends, strict=False)]
