"""Teacher prompts as plain data, for files and for the identity of a chain."""

from __future__ import annotations

import dataclasses
import difflib
import uuid
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from langchain_gkt.prompts.base import TeacherPrompt, TeacherPromptSequence, step_name, steps_of
from langchain_gkt.prompts.hints import HintPrompt
from langchain_gkt.prompts.ready_made import (
    InstructTeacher,
    KeepPrefix,
    LastTurns,
    SummarizeOlder,
    WithoutExemplars,
)

_READY_MADE: dict[str, Any] = {
    "without_exemplars": WithoutExemplars,
    "last_turns": LastTurns,
    "keep_prefix": KeepPrefix,
    "instruct_teacher": InstructTeacher,
    "summarize_older": SummarizeOlder,
    "hint": HintPrompt,
}
_NAMES = {kind: name for name, kind in _READY_MADE.items()}

# Fields that older releases do not know are left out while they play no part.
_LATER = {"shortest": False}

_marks: dict[int, tuple[weakref.ref[Any], str]] = {}


def is_plain(prompt: Any) -> bool:
    """Whether a teacher prompt is None or made of ready-made prompts only."""
    return all(type(step) in _NAMES for step in steps_of(prompt))


def needs_student(prompt: Any) -> bool:
    """Whether one of a teacher prompt's steps has the student write."""
    return any(isinstance(step, SummarizeOlder) for step in steps_of(prompt))


def to_data(prompt: Any) -> list[dict[str, Any]] | None:
    """Return the steps of a teacher prompt as JSON's values. Only ready-made ones have some."""
    for step in steps_of(prompt):
        if not is_plain(step):
            raise ValueError(
                f"teacher_prompt: {step_name(step)} cannot be saved, only ready-made prompts can "
                f"({', '.join(kind.__name__ for kind in _NAMES)}); save the policy without it, and "
                "give the chain teacher_prompt="
            )
    return None if prompt is None else [_named(step) for step in steps_of(prompt)]


def from_data(data: Any) -> TeacherPrompt | None:
    """Undo `to_data`, also for a single step. Refuse another form, and an unknown name or field."""
    if data is None:
        return None
    steps = [data] if isinstance(data, Mapping) else data
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise ValueError(f"teacher_prompt must be a list of prompts, not {data!r}")
    prompts = [_step(step) for step in steps]
    return prompts[0] if len(prompts) == 1 else TeacherPromptSequence(steps=tuple(prompts))


def _step(data: Any) -> TeacherPrompt:
    if not isinstance(data, Mapping) or not isinstance(data.get("prompt"), str):
        raise ValueError(
            f'teacher_prompt must hold objects such as {{"prompt": "last_turns"}}, not {data!r}'
        )
    fields = dict(data)
    name = fields.pop("prompt")
    if name not in _READY_MADE:
        near = difflib.get_close_matches(name, _READY_MADE, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "a newer release may have written it."
        raise ValueError(
            f"teacher_prompt {name!r} is not known; {hint} This release knows "
            f"{', '.join(_READY_MADE)}"
        )
    try:
        prompt: TeacherPrompt = _READY_MADE[name](**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"teacher_prompt {name!r}: {error}") from error
    return prompt


def describe_prompt(prompt: Any) -> Any:
    """Describe a teacher prompt so that two that may differ never look the same.

    Other steps than ready-made ones get their name, with a mark that no other object gets.
    """
    if is_plain(prompt):
        return to_data(prompt)
    return [
        to_data(step) if is_plain(step) else f"{_name(step)}#{_mark(step)}"
        for step in steps_of(prompt)
    ]


def name_prompt(prompt: Any) -> Any:
    """Describe a teacher prompt for people and files. Steps that are no data appear by name."""
    return None if prompt is None else [_named(step) for step in steps_of(prompt)]


def _named(step: Any) -> Any:
    if not is_plain(step):
        return _name(step)
    fields = dataclasses.asdict(step).items()
    known = {name: value for name, value in fields if (name, value) not in _LATER.items()}
    return {"prompt": _NAMES[type(step)], **known}


def _name(step: Any) -> str:
    kind = type(step)
    return (
        f"{getattr(step, '__module__', kind.__module__)}."
        f"{getattr(step, '__qualname__', kind.__qualname__)}"
    )


def _mark(step: Any) -> str:
    """Return a mark of this object only, even when its address is used again."""
    key = id(step)
    known = _marks.get(key)
    if known is not None and known[0]() is step:
        return known[1]
    mark = uuid.uuid4().hex
    with suppress(TypeError):  # it allows no weak reference, so each look-up gets another mark
        _marks[key] = (weakref.ref(step, lambda _: _marks.pop(key, None)), mark)
    return mark


def kept_prompt(data: Any) -> Any:
    """Rebuild a prompt from a run's folder, which holds functions by their names only.

    Returns:
        The prompt. None if there was none, or one that no file can hold.
    """
    is_named = any(isinstance(step, str) for step in data or ())
    return None if is_named else from_data(data)
