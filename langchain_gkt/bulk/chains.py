"""The chain of a bulk job: how it is sent to other processes, and its restrictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.messages import BaseMessage, HumanMessage

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.errors import refuse_empty
from langchain_gkt.evaluation.running.run_settings import describe_teacher
from langchain_gkt.prompts.plain_data import name_prompt
from langchain_gkt.teachers.wrappers import is_configurable, models_of

ChainLike: TypeAlias = (
    GuidedKnowledgeTransferChain | Mapping[str, Any] | Callable[[], GuidedKnowledgeTransferChain]
)
"""A chain, the arguments of its constructor, or a function that makes it in each actor."""

_KEY_VERSION = 1
"""Grows when the form of keys changes, so that old guidance is not found by chance."""


def pack_chain(chain_or_config: ChainLike) -> bytes:
    """Pickle a chain, its constructor's arguments or a function that makes it, for `unpack_chain`.

    Raises:
        TypeError: If it is something else, or cannot be pickled.
        ValueError: If the chain cannot be used in bulk.
    """
    from ray import cloudpickle

    if isinstance(chain_or_config, Mapping):
        chain_or_config = GuidedKnowledgeTransferChain(**chain_or_config)
    if isinstance(chain_or_config, GuidedKnowledgeTransferChain):
        check_chain(chain_or_config)
    elif not callable(chain_or_config) or isinstance(chain_or_config, type):
        raise TypeError(
            "chain_or_config must be a GuidedKnowledgeTransferChain, a mapping with its "
            "constructor's arguments, or a function that makes one, not "
            f"{type(chain_or_config).__name__}"
        )
    try:
        if isinstance(chain_or_config, GuidedKnowledgeTransferChain):
            _refuse_script_classes(chain_or_config.teacher)
        packed: bytes = cloudpickle.dumps(chain_or_config)
    except Exception as error:
        raise TypeError(
            f"the chain cannot be pickled, so it cannot reach Ray's actors ({error}). Pass a "
            "function that makes it in each actor instead: guide_dataset(dataset, lambda: "
            "GuidedKnowledgeTransferChain(teacher=..., student='path/or/repo-id'), ...)"
        ) from error
    return packed


def _refuse_script_classes(teacher: Any) -> None:
    """Refuse a teacher whose class no actor can import."""
    for model in () if is_configurable(teacher) else models_of(teacher):
        if type(model).__module__ == "__main__":
            raise TypeError(f"{type(model).__name__} is a class of the script itself")


def unpack_chain(packed: bytes) -> GuidedKnowledgeTransferChain:
    """Build the packed chain in the process that needs it.

    Raises:
        TypeError: If a function made something else.
        ValueError: If the chain cannot be used in bulk.
    """
    from ray import cloudpickle

    chain = cloudpickle.loads(packed)
    if not isinstance(chain, GuidedKnowledgeTransferChain):
        chain = chain()
    if not isinstance(chain, GuidedKnowledgeTransferChain):
        raise TypeError(
            "chain_or_config is a function; it must return a GuidedKnowledgeTransferChain, not "
            f"{type(chain).__name__}"
        )
    check_chain(chain)
    # The cache of a single process would make the bill depend on that process.
    return chain.model_copy(update={"cache": False})


def check_chain(chain: GuidedKnowledgeTransferChain) -> None:
    """Refuse a chain that would behave differently in a bulk job.

    Raises:
        ValueError: If it has a budget of its own, or asks the student before the teacher.
    """
    if chain.budget is not None:
        raise ValueError(
            "the chain's budget would hold for each process by itself; leave it out and give "
            "guide_dataset(..., budget=Budget(...)), which holds for the whole job"
        )
    if settings_of(chain).gate is not None:
        raise ValueError(
            "the chain's guidance policy has the student decide whether the teacher is asked; a "
            "bulk job asks the teacher first. Use GuidancePolicy(ask='always') without a "
            "gate, or split the dataset beforehand"
        )


def settings_of(chain: GuidedKnowledgeTransferChain) -> CallSettings:
    """Return the settings of the chain's calls."""
    return CallSettings.of(chain, None, None, {}, set())


def read_prompt(value: Any, column: str) -> list[BaseMessage]:
    """Make a conversation of a row's prompt.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it is empty.
    """
    if not isinstance(value, str):
        raise TypeError(
            f"prompt_column={column!r} holds a {type(value).__name__} in this row, not text; "
            "convert or drop such rows"
        )
    messages: list[BaseMessage] = [HumanMessage(value)]
    refuse_empty(messages)
    return messages


class GuidanceKeys:
    """Names guidance by everything that the teacher's reply depends on."""

    def __init__(self, chain: GuidedKnowledgeTransferChain, *, questions_per_call: int = 1) -> None:
        """Describe the chain's side, which is the same for every row."""
        settings = settings_of(chain)
        about = {
            "version": _KEY_VERSION,
            "teacher": describe_teacher(settings.teacher),
            "limit": settings.limit,
            "temperature": settings.temperature,
            "stop": settings.stop,
            "teacher_prompt": name_prompt(settings.teacher_prompt),
            "guidance_tokens": settings.guidance_tokens if settings.teacher_prompt else None,
            # Left out for one, because older jobs lack it.
            **({"questions_per_call": questions_per_call} if questions_per_call > 1 else {}),
        }
        self._about = json.dumps(about, sort_keys=True, default=str)

    def of(self, messages: list[BaseMessage]) -> str:
        """Return the key of one conversation's guidance, a digest in hexadecimal."""
        conversation = json.dumps([[message.type, message.content] for message in messages])
        return hashlib.sha256(f"{self._about}\n{conversation}".encode()).hexdigest()
