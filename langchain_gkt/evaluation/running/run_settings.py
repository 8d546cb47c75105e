"""A run's settings, in plain values. All its sessions must agree in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from langchain_core.messages import BaseMessage

from langchain_gkt._langchain_compat import RunnableBindingBase, identifying_params, tracing_params
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs import MachineTime
from langchain_gkt.costs.prices import Prices, describe_price
from langchain_gkt.costs.scenarios import BillingScenario, describe_scenario
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.gates import Gate, ThresholdGate, gate_from
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.prompts.base import PromptContext, prepare
from langchain_gkt.prompts.plain_data import is_plain, name_prompt, needs_student
from langchain_gkt.prompts.shared_prefix import SharedPrefix, shared_prefix
from langchain_gkt.teachers.secrets import without_secrets
from langchain_gkt.teachers.wrappers import models_of, resolve


@dataclass(frozen=True, kw_only=True)
class Billing:
    """How a run is billed, as for `CostTracker`."""

    teacher_price: Prices = None
    student_price: Prices | MachineTime = None
    tier: str | None = None
    scenario: BillingScenario | None = None


def run_settings(
    chain: GuidedKnowledgeTransferChain, task: Task, billing: Billing
) -> dict[str, Any]:
    """Describe a run's settings, the same in every process, without keys and addresses."""
    teacher = resolve(chain.teacher, None)
    student: Any = chain.student
    return {
        "task": {
            "name": task.name,
            "style": task.style,
            "shots": len(task.examples),
            "metrics": ["answer", *task.more_metrics],
        },
        **describe_teacher(teacher),
        "student": {
            **_model(student),
            "weights": identifying_params(student).get("weights"),
            "dtype": getattr(student, "dtype", None),
        },
        "chain": {
            "guidance_tokens": chain.guidance_tokens,
            "guidance": None if chain.guidance is None else _policy(chain.guidance),
            "teacher_prompt": name_prompt(chain.teacher_prompt),
            "max_tokens": chain.max_tokens,
            "temperature": chain.temperature,
            "stop": chain.stop,
            "on_teacher_error": chain.on_teacher_error,
            # Left out without a vote, because older runs lack it.
            **({"samples": chain.samples} if chain.samples > 1 else {}),
        },
        "prices": {
            "teacher": describe_price(billing.teacher_price),
            "student": describe_price(billing.student_price),
            # Left out if none was named, because older runs lack it.
            **({"tier": billing.tier.lower()} if billing.tier else {}),
            **({"scenario": describe_scenario(billing.scenario)} if billing.scenario else {}),
        },
    }


def describe_teacher(teacher: Any) -> dict[str, Any]:
    """Describe a teacher, the same in every process, without keys and addresses."""
    return {
        "teacher": [_model(model) for model in models_of(teacher)],
        "teacher_bound": _bound_arguments(teacher),
    }


def described(gate: Gate) -> Any:
    """Describe what a gate's signals depend on, in plain values for the settings.

    That is its kind. For a gate that has the student answer, it is all but its threshold.
    """
    if gate.shown_as is None:
        return gate.kind
    if isinstance(gate, ThresholdGate):
        gate = gate.asking_above(1.0)  # the same for every threshold
    fields: Any = gate
    if callable(getattr(gate, "answer_of", None)):  # no file can hold it
        gate = replace(fields, answer_of=None)
    return gate.to_dict()


def measured(settings: Mapping[str, Any]) -> tuple[ThresholdGate, ...]:
    """Return the `described` gates that have the student answer, if their module is imported."""
    gates = [gate_from(kept) for kept in settings.get("gates", ()) if isinstance(kept, Mapping)]
    return tuple(gate for gate in gates if isinstance(gate, ThresholdGate))


def shared_fronts(
    chain: GuidedKnowledgeTransferChain, prompts: Sequence[list[BaseMessage]]
) -> dict[str, SharedPrefix]:
    """Measure the common beginning of a run's prompts, and of those that the teacher is shown.

    Returns:
        ``whole`` and ``shown``. A prompt made by the user's own code is not requested twice, and is
        assumed to share nothing.
    """
    own = (chain.guidance and chain.guidance.teacher_prompt) or chain.teacher_prompt
    whole = shared_prefix(prompts)
    if own is None:
        return {"whole": whole, "shown": whole}
    if not is_plain(own) or needs_student(own):
        return {"whole": whole, "shown": whole._replace(shared=0)}
    tokens = chain.guidance_tokens
    shown = [
        prepare(own, prompt, PromptContext(conversation=prompt, guidance_tokens=tokens)).messages
        for prompt in prompts
    ]
    return {"whole": whole, "shown": shared_prefix(shown)}


def _policy(policy: GuidancePolicy) -> dict[str, Any]:
    """Describe a policy. Leave out fields that older runs lack if they play no part."""
    later = {"min_tokens": 0, "teacher_prompt": None, "predictor": None}
    return {
        name: value
        for name, value in policy.to_dict().items()
        if name not in later or later[name] != value
    }


def _model(model: Any) -> dict[str, Any]:
    """Describe a model by the parameters in LangChain's traces."""
    params = tracing_params(model)
    return {
        "class": type(model).__name__,
        "provider": params.get("ls_provider"),
        "model": params.get("ls_model_name"),
        "temperature": params.get("ls_temperature"),
        "params": _plain(without_secrets(identifying_params(model))),
        # Without its port, because a local server often gets another one.
        "host": urlsplit(str(getattr(model, "openai_api_base", None) or "")).hostname,
    }


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep values that read the same in every process."""
    kept = {}
    for name, value in params.items():
        try:
            kept[str(name)] = json.loads(json.dumps(value))
        except (TypeError, ValueError):  # clients, functions and the like
            continue
    return kept


def _bound_arguments(teacher: Any) -> list[dict[str, Any]]:
    """Return the arguments that wrappers of a teacher add to its calls, the outermost first."""
    if not isinstance(teacher, RunnableBindingBase):
        return []
    return [_plain(without_secrets(teacher.kwargs)), *_bound_arguments(teacher.bound)]
