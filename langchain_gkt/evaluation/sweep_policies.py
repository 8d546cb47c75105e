"""sweep_policies(): sweeps of several policies side by side, such as several teacher prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.errors import refuse_unknown
from langchain_gkt.evaluation.results.policy_sweep import PolicySweep
from langchain_gkt.evaluation.results.sweep_result import Sweep
from langchain_gkt.evaluation.running.async_to_sync import async_to_sync
from langchain_gkt.evaluation.running.recorded import require_recorded
from langchain_gkt.evaluation.running.run_settings import run_settings
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.evaluation.sweep import ReusedRun, SweepSettings, sweep_from
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.guidance import GuidancePolicy, as_policy
from langchain_gkt.prompts.base import for_tokens

PolicyLike: TypeAlias = GuidancePolicy | Mapping[str, Any] | str | Path | None
"""A policy, its fields, a file of one, or None for the default `GuidancePolicy`."""

_NAME = re.compile(r"\w[\w .+-]*")


async def asweep_policies(
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    policies: Mapping[str, PolicyLike],
    *,
    out: str | Path | None = None,
    **settings: Any,
) -> PolicySweep:
    """Sweep over guidance lengths once for each of several policies, and compare them.

    Policies differ in the teacher's prompt (``teacher_prompt``), and in where guidance is cut
    (``cut``) or dropped (``min_tokens``). The teacher answers each question once per teacher
    prompt, the student alone once in all. With ``out``, each policy has a folder of its own inside,
    an ordinary sweep. A later call may name more policies.

    Args:
        chain: The guided pair. Its own policy and teacher prompt are ignored. None as a prompt
            shows the teacher the whole conversation.
        task: As for `sweep`.
        policies: Policies by name. When to ask (``ask``) plays no part.
        out: The folder. None to keep nothing.
        **settings: The other arguments of `sweep`.

    Returns:
        The sweeps by name. `PolicySweep.choose` names the cheapest policy that is good enough.

    Raises:
        TypeError: If an argument is unknown, or a policy is invalid.
        ValueError: If an argument makes no sense, or ``out`` holds a run of other settings.
        RuntimeError: If every question fails, or another process writes to ``out``.
    """
    if not isinstance(policies, Mapping) or not policies:
        raise ValueError("policies must map a name to each GuidancePolicy, and name at least one")
    chains = {name: _with(chain, name, policy) for name, policy in policies.items()}
    refuse_unknown(settings, [field.name for field in fields(SweepSettings)], "sweep_policies")
    shared = SweepSettings(**settings)
    folder = RunStore(out)
    keys = [task.row_key(i) for i in range(len(task.rows))]
    prompts = [task.prompt(row) for row in task.rows]
    for policy_chain in chains.values():
        require_recorded(policy_chain, prompts, check_lengths=shared.check_lengths)
    asked = [str(prompt[-1].text) for prompt in prompts]
    made_with = run_settings(chain, task, shared)
    del made_with["chain"]  # each policy's folder has its own
    sweeps: dict[str, Sweep] = {}
    with folder.writing(
        "policies", made_with, dict(zip(keys, asked, strict=True)), {"policies": list(chains)}
    ):
        for name, policy_chain in chains.items():
            reused = list[ReusedRun]()
            for known, earlier in sweeps.items():
                same = chains[known].teacher_prompt == policy_chain.teacher_prompt
                reused.append((earlier.folder, ["student", "teacher"] if same else ["student"]))
            inner = None if folder.path is None else folder.path / name
            sweeps[name] = await sweep_from(reused, policy_chain, task, inner, shared)
    return PolicySweep.of(folder, sweeps)


def _with(
    chain: GuidedKnowledgeTransferChain, name: Any, policy_like: PolicyLike
) -> GuidedKnowledgeTransferChain:
    """Return the chain with one policy. Fill in its teacher prompt's number of tokens."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"policies: {name!r} cannot name a folder; use letters, digits, spaces and . + - _"
        )
    try:
        policy = as_policy(policy_like) or GuidancePolicy()
    except TypeError as error:
        raise TypeError(f"policies[{name!r}]: {error}") from error
    tokens = chain.guidance_tokens if policy.tokens is None else policy.tokens
    return chain.model_copy(
        update={
            "guidance": replace(policy, tokens=None, teacher_prompt=None),
            "guidance_tokens": tokens,
            "teacher_prompt": for_tokens(policy.teacher_prompt, max(1, tokens)),
        }
    )


sweep_policies = async_to_sync(asweep_policies, "sweep_policies")
