"""What a tracker remembers of runs and calls until they end."""

from __future__ import annotations

import asyncio
import re
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.costs.totals import Counts

_RETRY = re.compile(r"retry:attempt:([2-9]|\d\d)")
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")
# These clients retry by themselves unless told otherwise.
_RETRYING = {"openai", "azure", "anthropic", "groq", "mistralai", "together", "fireworks"}


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One model call, kept where ``keep_calls`` is set.

    Attributes:
        role: ``teacher`` or ``student``.
        model: The model's name as it was asked for.
        call_id: The chain call it belongs to.
        mode: The chain's mode in that call.
        usage: Usage metadata, or None where none was reported.
        seconds: Time between start and end.
        first_token_seconds: Time to the first streamed token, or None.
        error: What it failed with, or None.
        retry: Whether it repeats a failed attempt.
        counts: Its own tokens and money.
    """

    role: str
    model: str
    call_id: str
    mode: str
    usage: UsageMetadata | None
    seconds: float
    first_token_seconds: float | None = None
    error: str | None = None
    retry: bool = False
    counts: Counts = field(default_factory=Counts)


@dataclass(kw_only=True)
class OpenRun:
    """A teacher's or student's run that has not ended.

    Attributes:
        role: ``teacher`` or ``student``.
        call_id: The chain call it belongs to.
        mode: The chain's mode in that call.
        provider: The provider's id.
        model: The model's name as it was asked for.
        base_url: The server's address, if known.
        limit: Most completion tokens it was asked for, if known.
        prompt_chars: Characters of its prompt.
        retry: Whether it repeats a failed attempt.
        retries_inside: Whether its client may retry where no callback sees it.
        compared: Whether it belongs to a measured comparison, not to the bill.
        started: When it started, in seconds of `time.perf_counter`.
        first: When its first token came, if it streams.
        mark: What the machine's clock said at its start.
        answered: The model's name as the response gave it.
        tier: The service tier the response names.
    """

    role: str
    call_id: str
    mode: str
    provider: str | None
    model: str
    base_url: str | None
    limit: int | None
    prompt_chars: int
    retry: bool
    retries_inside: bool
    compared: bool = False
    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    mark: float = 0.0
    answered: str | None = None
    tier: str | None = None


@dataclass(kw_only=True)
class OpenCall:
    """What the models' runs of one chain call came to, until the chain's run ends.

    Attributes:
        mode: The chain's mode.
        spent: Sums of the runs that ended.
        teacher: The last teacher run that ended.
        root: The chain's run; None where the teacher was asked outside of one.
        inside: Runs of wrappers, such as ``with_retry``, within the call.
    """

    mode: str
    spent: Counts = field(default_factory=Counts)
    teacher: OpenRun | None = None
    root: UUID | None = None
    inside: set[UUID] = field(default_factory=set)


def open_run(
    role: str,
    serialized: dict[str, Any] | None,
    metadata: dict[str, Any],
    *,
    prompt_chars: int,
    tags: Sequence[str] = (),
    params: dict[str, Any] | None = None,
) -> OpenRun:
    """Read what a start event tells of a run.

    Args:
        role: ``teacher`` or ``student``.
        serialized: The model as langchain-core wrote it down.
        metadata: The run's metadata.
        prompt_chars: Characters of its prompt.
        tags: The run's tags.
        params: The arguments the model is called with.

    Returns:
        The run.
    """
    params, given = params or {}, (serialized or {}).get("kwargs") or {}
    base_url = given.get("openai_api_base") or given.get("base_url") or params.get("base_url")
    limits = [params.get(name) for name in _LIMITS] + [metadata.get("ls_max_tokens")]
    provider = metadata.get("ls_provider")
    return OpenRun(
        role=role,
        call_id=str(metadata.get("gkt_call_id")),
        mode=metadata.get("gkt_mode", "guided"),
        provider=provider,
        model=metadata.get("ls_model_name") or "unknown",
        base_url=base_url if isinstance(base_url, str) else None,
        limit=next((limit for limit in limits if isinstance(limit, int)), None),
        prompt_chars=prompt_chars,
        retry=any(_RETRY.fullmatch(tag) for tag in tags),
        retries_inside=provider in _RETRYING and given.get("max_retries") != 0,
    )


class TaskWatch:
    """Notices what an asyncio task left open when it ended, as a cancelled one does.

    langchain-core sends no event for a cancelled ``ainvoke``. One callback for a task, however
    much it opens, so that a task that lives long holds nothing of what it has closed.
    """

    def __init__(
        self, lost: Callable[[UUID | str], None], lock: AbstractContextManager[Any]
    ) -> None:
        """Remember whom to tell.

        Args:
            lost: Called with each run (its id) and each chain call (a string) left open.
            lock: The owner's lock, which it holds around `start` and `end`.
        """
        self._lost, self._lock = lost, lock
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], set[UUID | str]] = (
            weakref.WeakKeyDictionary()
        )
        self._left: dict[UUID | str, weakref.ref[asyncio.Task[Any]]] = {}

    def start(self, key: UUID | str) -> None:
        """Watch what is opened in the current task, if there is one."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # a thread without an event loop
            return
        if task is None:
            return
        if task not in self._tasks:
            self._tasks[task] = set()
            task.add_done_callback(self._done)
        self._tasks[task].add(key)
        self._left[key] = weakref.ref(task)

    def end(self, key: UUID | str) -> None:
        """Forget what was closed."""
        ref = self._left.pop(key, None)
        task = ref() if ref else None
        if task is not None and task in self._tasks:
            self._tasks[task].discard(key)

    def _done(self, task: asyncio.Task[Any]) -> None:
        with self._lock:
            keys = self._tasks.pop(task, set())
            for key in keys:
                self._left.pop(key, None)
        for key in sorted(keys, key=lambda key: isinstance(key, str)):  # runs before their calls
            # A chain call is begun in a task of its own and ended by the one that waits for it.
            if not isinstance(key, str) or task.cancelled():
                self._lost(key)
