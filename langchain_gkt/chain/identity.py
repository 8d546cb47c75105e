"""What a chain says of itself: in traces, as the key of LangChain's cache, and its profile."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.language_models import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage

from langchain_gkt._langchain_compat import cache_key, identifying_params
from langchain_gkt.chain.fields import ChainFields
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.prompts.plain_data import describe_prompt, name_prompt
from langchain_gkt.teachers.identity import identity
from langchain_gkt.teachers.secrets import without_secrets
from langchain_gkt.teachers.wrappers import is_configurable, models_of, resolve

_NAMED_FIELDS = (
    "guidance_tokens",
    "guidance",
    "mode",
    "max_tokens",
    "temperature",
    "samples",
    "answer_of",
    "stop",
    "on_teacher_error",
    "on_student_error",
    "on_refusal",
    "teacher_limit_param",
    "teacher_prefill",
)


_BOOKKEEPING = {"gkt", "token_usage", "usage"}
"""In the ``response_metadata`` of an answer."""


def known_identity(known: tuple[Any, str] | None, teacher: Any) -> tuple[Any, str]:
    """Return a teacher and its identity, the first that was known of it.

    Some models count their calls in their own fields.
    """
    if known is not None and known[0] is teacher:
        return known
    return teacher, repr(identity(teacher))


def traced_params(chain: ChainFields) -> dict[str, Any]:
    """Return the settings of a chain, and the parameters of its models, for traces."""

    def describe(model: Any) -> dict[str, Any]:
        return {"class": type(model).__name__, **without_secrets(identifying_params(model))}

    return {
        # Vendors' model ids stay out of the field by which agents choose strategies.
        "model_name": "langchain-gkt",
        "teacher": [describe(model) for model in models_of(resolve(chain.teacher, None))],
        "student": describe(chain.student),
        **{name: getattr(chain, name) for name in _NAMED_FIELDS},
        "teacher_prompt": name_prompt(chain.teacher_prompt),
    }


def without_bookkeeping(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Remove answers' costs from a conversation. They would change LangChain's cache key.

    An answer from the cache reports no cost. The next turn contains that answer. With costs, its
    key would differ from the earlier one. A message that says nothing of its cost stays the same
    object.
    """
    return [
        message.model_copy(update=update) if (update := _cleared(message)) else message
        for message in messages
    ]


def _cleared(message: BaseMessage) -> dict[str, Any]:
    """Return the fields of an answer without its cost, if it has one."""
    if not isinstance(message, AIMessage):
        return {}
    metadata = message.response_metadata
    update: dict[str, Any] = {}
    if message.usage_metadata is not None:
        update["usage_metadata"] = None
    if not _BOOKKEEPING.isdisjoint(metadata):
        kept = {name: value for name, value in metadata.items() if name not in _BOOKKEEPING}
        update["response_metadata"] = kept
    return update


def answer_key(
    chain: ChainFields, teacher_identity: str, stop: list[str] | None, arguments: dict[str, Any]
) -> str:
    """Return the key of LangChain's cache for everything that an answer depends on.

    It is a digest, because a teacher's settings may hold secrets that a cache should not.
    """
    student = cache_key(chain.loaded_student) if strategy_of(chain.mode).asks_student else None
    policies = (chain.guidance, arguments.get("guidance"))
    prompts = [
        describe_prompt(prompt)
        for prompt in (
            chain.teacher_prompt,
            chain.redact,
            arguments.get("teacher_prompt"),
            *(policy.teacher_prompt for policy in policies if isinstance(policy, GuidancePolicy)),
        )
    ]
    call_items = sorted((name, value) for name, value in arguments.items() if name != "timeout")
    parts = (traced_params(chain), teacher_identity, student, stop, call_items, prompts)
    return f"langchain-gkt:{hashlib.sha256(repr(parts).encode()).hexdigest()}"


def pair_profile(chain: ChainFields) -> ModelProfile:
    """Return the limits and abilities that the models have together, as far as they are known."""
    strategy, teachers = strategy_of(chain.mode), list[dict[str, Any]]()
    if not is_configurable(chain.teacher):  # only a call knows which model it is
        teachers = [dict(model.profile or {}) for model in models_of(chain.teacher)]
    answering = teachers if strategy.asks_teacher else []
    if strategy.asks_student:
        answering = [*answering, dict(chain.loaded_student.profile or {})]
    fields: dict[str, Any] = {"text_inputs": True, "text_outputs": True, "image_inputs": False}
    for name in ("max_input_tokens", "max_output_tokens"):
        known = [profile[name] for profile in answering if profile.get(name)]
        if name == "max_output_tokens" and chain.max_tokens is not None:
            known.append(chain.max_tokens)
        if known:
            fields[name] = min(known)
    # Tool calls are the teacher's. The student makes them only in mode ``student``.
    callers = teachers if strategy.asks_teacher else answering
    for name in ("tool_calling", "tool_choice"):
        if callers and all(name in profile for profile in callers):
            fields[name] = all(profile[name] for profile in callers)
    # An agent would ask for an object in every turn, and then could not call its tools.
    fields["structured_output"] = False
    return cast(ModelProfile, fields)
