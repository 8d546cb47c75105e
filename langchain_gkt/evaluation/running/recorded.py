"""Recorded teachers in an evaluation. Names missing answers before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.errors import NotSupportedError
from langchain_gkt.prompts.plain_data import name_prompt
from langchain_gkt.teachers.recorded import RecordedTeacher
from langchain_gkt.teachers.token_cuts import TokenSplitter, load_tokenizer
from langchain_gkt.teachers.wrappers import models_of, resolve


def recorded_teachers(teacher: Any) -> list[RecordedTeacher]:
    """Return a teacher's recorded models. None if any of its models is live."""
    models = list(models_of(resolve(teacher, None)))
    recorded = [model for model in models if isinstance(model, RecordedTeacher)]
    return recorded if len(recorded) == len(models) else []


def require_recorded(
    chain: GuidedKnowledgeTransferChain,
    prompts: Iterable[list[BaseMessage]],
    *,
    check_lengths: Sequence[int] = (),
    modes: Sequence[str] = (),
) -> None:
    """Refuse a run that needs answers a recorded teacher lacks. A live one may be asked anything.

    ``check_lengths`` are those at which the run asks its teacher again.

    Raises:
        NotSupportedError: If a live teacher is needed. It says what for.
        ConfigurationError: If a question has no recorded answer.
    """
    recorded = recorded_teachers(chain.teacher)
    if not recorded:
        return
    source = recorded[0].recordings.source
    prompt = (chain.guidance and chain.guidance.teacher_prompt) or chain.teacher_prompt
    if prompt is not None:
        raise NotSupportedError(
            f"teacher_prompt={name_prompt(prompt)} needs a live teacher: shown another prompt it "
            f"may answer otherwise than {source} has recorded",
            hint="leave teacher_prompt out: prompt tokens are billed as they were recorded",
        )
    if check_lengths:
        raise NotSupportedError(
            f"check_lengths={list(check_lengths)} needs a live teacher: it asks again, and the "
            f"answers of {source} can only be cut again",
            hint="leave check_lengths out",
        )
    if own := [mode for mode in modes if strategy_of(mode).asks_own_questions]:
        raise NotSupportedError(
            f"mode={own[0]!r} needs a live teacher: it asks questions of its own, to which "
            f"{source} holds no answers",
            hint="leave that mode out",
        )
    asked = list(prompts)
    for teacher in recorded:
        teacher.require(asked)


def recorded_splitter(teacher: Any) -> TokenSplitter | None:
    """Return the splitter for recorded answers. None without their tokenizer."""
    names = {model.tokenizer for model in recorded_teachers(teacher)}
    name = names.pop() if len(names) == 1 else None
    return load_tokenizer(name).split if name else None


def describe_recorded(teacher: Any) -> dict[str, Any]:
    """Return the source of recorded answers for a run's manifest. Empty for a live teacher."""
    logs = [
        {
            "file": model.recordings.source,
            "dated": model.recordings.dated,
            "answers": len(model.recordings.answers),
            "model": model.model_name,
        }
        for model in recorded_teachers(teacher)
    ]
    return {"recorded": logs} if logs else {}
